/* cuDNN: descriptors, and one engine for every graph. What its engines would ask for as workspace is not known: none.
 * The workspace that cudnn_frontend lays out itself is computed in torch's own binary. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

/* Types of cudnn_graph_v9.h, cudnnBackendAttributeType_t. */
enum { INT64 = 3, DESCRIPTOR = 15, INT32 = 23 };

size_t cudnnGetVersion(void) { return 91900; } /* what torch 2.11 and 2.13 come with */
int cudnnCreate(void **out) { return *out = calloc(1, 4096), 0; }
int cudnnGetProperty(int part, int *out) { return *out = part == 0 ? 9 : part == 1 ? 19 : 0, 0; }
const char *cudnnGetErrorString(int status) { return "no card"; }

int cudnnBackendCreateDescriptor(int type, void **out) { return *out = calloc(1, 1024), 0; }
int cudnnBackendGetAttribute(void *descriptor, int attribute, int type, int64_t wanted, int64_t *count, void *out) {
  int known = type == INT64 || type == INT32 || type == DESCRIPTOR;
  if (count) *count = known;
  if (out && wanted && type == INT64) *(int64_t *)out = 0;
  if (out && wanted && type == INT32) *(int32_t *)out = 0;
  return 0;
}
