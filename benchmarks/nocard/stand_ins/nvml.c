/* NVML: the card that the runtime stands for, and what this process holds on it. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

typedef unsigned long long bytes;

static const char *asked(const char *key, const char *otherwise) {
  const char *value = getenv(key);
  return value && *value ? value : otherwise;
}
static bytes total(void) { return strtoull(asked("NOCARD_TOTAL", "150012428288"), 0, 10); }
static bytes used(void) { /* nothing before torch has loaded the runtime */
  size_t (*count)(void) = (size_t(*)(void))dlsym(RTLD_DEFAULT, "nocard_used");
  return count ? count() : 0;
}

int nvmlInit_v2(void) { return 0; }
int nvmlInitWithFlags(unsigned flags) { return 0; }
int nvmlShutdown(void) { return 0; }
const char *nvmlErrorString(int error) { return "no card"; }
int nvmlSystemGetDriverVersion(char *out, unsigned length) { return snprintf(out, length, "none"), 0; }
int nvmlSystemGetCudaDriverVersion_v2(int *out) { return *out = 13000, 0; }
int nvmlDeviceGetCount_v2(unsigned *out) { return *out = 1, 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **out) { return *out = (void *)64, 0; }
int nvmlDeviceGetHandleByUUID(const char *uuid, void **out) { return *out = (void *)64, 0; }
int nvmlDeviceGetHandleByPciBusId_v2(const char *bus, void **out) { return *out = (void *)64, 0; }
int nvmlDeviceGetName(void *device, char *out, unsigned length) {
  return snprintf(out, length, "%s", asked("NOCARD_NAME", "NVIDIA H200")), 0;
}
int nvmlDeviceGetUUID(void *device, char *out, unsigned length) { return snprintf(out, length, "GPU-none"), 0; }
int nvmlDeviceGetCudaComputeCapability(void *device, int *major, int *minor) {
  return sscanf(asked("NOCARD_CAPABILITY", "9.0"), "%d.%d", major, minor) != 2;
}
int nvmlDeviceGetMemoryInfo(void *device, bytes *out) { /* nvmlMemory_t: total, free, used */
  return out[0] = total(), out[2] = used(), out[1] = out[0] - out[2], 0;
}
int nvmlDeviceGetMemoryInfo_v2(void *device, bytes *out) { /* nvmlMemory_v2_t: version, total, reserved, free, used */
  return out[1] = total(), out[2] = 0, out[4] = used(), out[3] = out[1] - out[4], 0;
}
int nvmlDeviceGetComputeRunningProcesses_v3(void *device, unsigned *count, void *out) { return *count = 0, 0; }

/* Only looked up by torch, which says in an out-of-memory message what other processes hold. */
int nvmlDeviceGetComputeRunningProcesses(void *device, unsigned *count, void *out) { return *count = 0, 0; }
int nvmlDeviceGetNvLinkRemoteDeviceType(void) { return 3; }
int nvmlDeviceGetNvLinkRemotePciInfo_v2(void) { return 3; }
int nvmlDeviceGetGpuFabricInfoV(void *device, void *out) { return 0; } /* belongs to none */
