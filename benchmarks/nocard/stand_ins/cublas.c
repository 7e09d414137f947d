/* cuBLAS and cuBLASLt: handles, and a product that is always possible. */
#include <stddef.h>
#include <stdlib.h>

static int made(void **out) { return *out = calloc(1, 4096), 0; }

int cublasCreate_v2(void **out) { return made(out); }
int cublasGetMathMode(void *handle, int *out) { return *out = 0, 0; }
int cublasGetPointerMode_v2(void *handle, int *out) { return *out = 0, 0; }
int cublasGetStream_v2(void *handle, void **out) { return *out = NULL, 0; }

int cublasLtCreate(void **out) { return made(out); }
int cublasLtMatmulAlgoGetHeuristic(void *handle, void *operation, void *a, void *b, void *c, void *d, void *preference,
                                   int wanted, void *results, int *found) {
  return *found = 1, 0;
}
