/* The CUDA runtime without a card: hands out addresses, counts bytes, launches nothing.
 *
 * Memory is reserved, not touched, so a card of 140 GiB fits into any machine. The card is described by the
 * environment: NOCARD_NAME, NOCARD_CAPABILITY, NOCARD_PROCESSORS, NOCARD_TOTAL, NOCARD_CONTEXT. */
#define _GNU_SOURCE
#include <cuda_runtime_api.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#undef cudaGetDeviceProperties

#define MIB ((size_t)1 << 20)
#define GRANULE (2 * MIB) /* cudaMalloc takes from the driver in pages of 2 MiB */
#define SMALL_COPY MIB    /* larger ones would touch memory that nothing reads */
#define MOST_BLOCKS (1 << 20)

enum kind { DEVICE, HOST, MANAGED, RANGE }; /* the last: addresses without memory, until some is mapped */

static struct { char *address; size_t size; enum kind kind; } blocks[MOST_BLOCKS];
static int block_count;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static __thread cudaError_t last_error;
static size_t total, context, used; /* the context exists from the first allocation on */
static int started;
static int major, minor, processors;
static const char *name;

static const char *asked(const char *key, const char *otherwise) {
  const char *value = getenv(key);
  return value && *value ? value : otherwise;
}

__attribute__((constructor)) static void read_card(void) {
  name = asked("NOCARD_NAME", "NVIDIA H200");
  total = strtoull(asked("NOCARD_TOTAL", "150012428288"), 0, 10);
  context = strtoull(asked("NOCARD_CONTEXT", "536870912"), 0, 10);
  processors = atoi(asked("NOCARD_PROCESSORS", "132"));
  sscanf(asked("NOCARD_CAPABILITY", "9.0"), "%d.%d", &major, &minor);
}

/* What NVML's stand-in asks. */
size_t nocard_used(void) { return started ? used + context : 0; }

static cudaError_t failed(cudaError_t error) { return last_error = error; }

static size_t whole(size_t size) { return (size + GRANULE - 1) / GRANULE * GRANULE; }

static cudaError_t take(void **out, size_t size, enum kind kind) {
  cudaError_t result = cudaErrorMemoryAllocation;
  pthread_mutex_lock(&lock);
  started |= kind == DEVICE;
  size_t taken = kind == DEVICE ? whole(size) : 0;
  if (used + context + taken <= total) {
    void *address = mmap(0, size ? size : 1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    int place = 0;
    while (place < block_count && blocks[place].address) place++;
    if (address != MAP_FAILED && place < MOST_BLOCKS) {
      if (place == block_count) block_count++;
      blocks[place].address = address, blocks[place].size = size, blocks[place].kind = kind;
      used += taken, *out = address, result = cudaSuccess;
    }
  }
  pthread_mutex_unlock(&lock);
  return result == cudaSuccess ? result : failed(result);
}

static cudaError_t give_back(void *address) {
  pthread_mutex_lock(&lock);
  for (int i = 0; address && i < block_count; i++) {
    if (blocks[i].address != address) continue;
    munmap(address, blocks[i].size ? blocks[i].size : 1);
    if (blocks[i].kind == DEVICE) used -= whole(blocks[i].size);
    blocks[i].address = 0;
    break;
  }
  pthread_mutex_unlock(&lock);
  return cudaSuccess;
}

cudaError_t cudaMalloc(void **out, size_t size) { return take(out, size, DEVICE); }
cudaError_t cudaMallocManaged(void **out, size_t size, unsigned flags) { return take(out, size, MANAGED); }
cudaError_t cudaHostAlloc(void **out, size_t size, unsigned flags) { return take(out, size, HOST); }
cudaError_t cudaFree(void *address) { return give_back(address); }
cudaError_t cudaFreeHost(void *address) { return give_back(address); }
cudaError_t cudaMemGetInfo(size_t *free, size_t *all) { return *all = total, *free = total - used - context, cudaSuccess; }

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t size, enum cudaMemcpyKind kind, cudaStream_t stream) {
  if (kind == cudaMemcpyDeviceToHost || size <= SMALL_COPY) memcpy(to, from, size);
  /* how many truths a mask has, which no kernel has counted; whatever lies there would be taken for it */
  const char *counted = getenv("NOCARD_COUNT");
  if (kind == cudaMemcpyDeviceToHost && size == sizeof(int)) *(int *)to = counted ? atoi(counted) : 0;
  return cudaSuccess;
}
cudaError_t cudaMemcpy(void *to, const void *from, size_t size, enum cudaMemcpyKind kind) {
  return cudaMemcpyAsync(to, from, size, kind, 0);
}

cudaError_t cudaPointerGetAttributes(struct cudaPointerAttributes *out, const void *pointer) {
  static const enum cudaMemoryType types[] = {cudaMemoryTypeDevice, cudaMemoryTypeHost, cudaMemoryTypeManaged,
                                              cudaMemoryTypeDevice};
  memset(out, 0, sizeof *out);
  out->type = cudaMemoryTypeUnregistered;
  pthread_mutex_lock(&lock);
  for (int i = 0; i < block_count; i++) {
    const char *begin = blocks[i].address;
    if (!begin || (const char *)pointer < begin || (const char *)pointer >= begin + blocks[i].size) continue;
    out->type = types[blocks[i].kind];
    out->devicePointer = (void *)pointer;
    out->hostPointer = blocks[i].kind == HOST ? (void *)pointer : 0;
    break;
  }
  pthread_mutex_unlock(&lock);
  return cudaSuccess;
}

/* -- the card. Shared memory decides which kernels torch takes: CUDA C++ Programming Guide, "Technical Specifications
 * per Compute Capability". */

static size_t shared_memory(void) {
  if (major == 9 || major == 10) return 227 << 10;
  if (major == 8 && (minor == 0 || minor == 7)) return 163 << 10;
  return major < 8 ? 64 << 10 : 99 << 10;
}

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *out, int device) {
  memset(out, 0, sizeof *out);
  snprintf(out->name, sizeof out->name, "%s", name);
  memcpy(out->uuid.bytes, "no card, no card", sizeof out->uuid.bytes);
  out->major = major, out->minor = minor, out->multiProcessorCount = processors, out->totalGlobalMem = total;
  out->warpSize = 32, out->maxThreadsPerBlock = 1024, out->maxBlocksPerMultiProcessor = 32;
  out->maxThreadsPerMultiProcessor = major == 7 ? 1024 : 2048;
  out->regsPerBlock = out->regsPerMultiprocessor = 65536;
  out->sharedMemPerBlock = 48 << 10, out->sharedMemPerBlockOptin = shared_memory();
  out->sharedMemPerMultiprocessor = shared_memory() + 1024, out->l2CacheSize = 48 << 20;
  for (int i = 0; i < 3; i++) {
    out->maxThreadsDim[i] = i == 2 ? 64 : 1024;
    out->maxGridSize[i] = i ? 65535 : 2147483647;
  }
  out->managedMemory = out->concurrentManagedAccess = out->unifiedAddressing = out->canMapHostMemory = 1;
  out->cooperativeLaunch = out->concurrentKernels = 1, out->textureAlignment = 512, out->asyncEngineCount = 3;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int *out, enum cudaDeviceAttr attribute, int device) {
  struct cudaDeviceProp card;
  cudaGetDeviceProperties(&card, device);
  switch (attribute) {
    case cudaDevAttrComputeCapabilityMajor: *out = major; break;
    case cudaDevAttrComputeCapabilityMinor: *out = minor; break;
    case cudaDevAttrMultiProcessorCount: *out = processors; break;
    case cudaDevAttrMaxSharedMemoryPerBlock: *out = card.sharedMemPerBlock; break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *out = card.sharedMemPerBlockOptin; break;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor: *out = card.sharedMemPerMultiprocessor; break;
    case cudaDevAttrMaxThreadsPerMultiProcessor: *out = card.maxThreadsPerMultiProcessor; break;
    case cudaDevAttrMaxRegistersPerBlock: *out = card.regsPerBlock; break;
    case cudaDevAttrL2CacheSize: *out = card.l2CacheSize; break;
    case cudaDevAttrWarpSize: *out = 32; break;
    case cudaDevAttrMaxThreadsPerBlock: case cudaDevAttrMaxBlockDimX: case cudaDevAttrMaxBlockDimY: *out = 1024; break;
    case cudaDevAttrMaxBlockDimZ: *out = 64; break;
    case cudaDevAttrMaxGridDimX: *out = 2147483647; break;
    case cudaDevAttrMaxGridDimY: case cudaDevAttrMaxGridDimZ: *out = 65535; break;
    case cudaDevAttrManagedMemory: case cudaDevAttrConcurrentManagedAccess: case cudaDevAttrUnifiedAddressing: *out = 1; break;
    default: *out = 0;
  }
  return cudaSuccess;
}

cudaError_t cudaGetDeviceCount(int *out) { return *out = 1, cudaSuccess; }
cudaError_t cudaGetDevice(int *out) { return *out = 0, cudaSuccess; }
cudaError_t cudaDriverGetVersion(int *out) { return *out = CUDART_VERSION, cudaSuccess; }
cudaError_t cudaRuntimeGetVersion(int *out) { return *out = CUDART_VERSION, cudaSuccess; }
cudaError_t cudaDeviceCanAccessPeer(int *out, int device, int peer) { return *out = 0, cudaSuccess; }
cudaError_t cudaDeviceGetPCIBusId(char *out, int length, int device) { return snprintf(out, length, "0000:00:00.0"), cudaSuccess; }
cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *most) { return *least = 0, *most = -5, cudaSuccess; }

/* -- errors */

cudaError_t cudaPeekAtLastError(void) { return last_error; }
cudaError_t cudaGetLastError(void) {
  cudaError_t error = last_error;
  last_error = cudaSuccess;
  return error;
}
const char *cudaGetErrorString(cudaError_t error) { return error == cudaErrorMemoryAllocation ? "out of memory" : "no card"; }
const char *cudaGetErrorName(cudaError_t error) { return error == cudaErrorMemoryAllocation ? "cudaErrorMemoryAllocation" : "cudaErrorUnknown"; }

/* -- streams, events, kernels: handles that mean nothing */

static void *handle(void) {
  static size_t given;
  return (void *)(0x700000000000 + __sync_add_and_fetch(&given, 64));
}
cudaError_t cudaStreamCreate(cudaStream_t *out) { return *out = handle(), cudaSuccess; }
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *out, unsigned flags) { return *out = handle(), cudaSuccess; }
cudaError_t cudaStreamCreateWithPriority(cudaStream_t *out, unsigned flags, int priority) { return *out = handle(), cudaSuccess; }
cudaError_t cudaStreamGetPriority(cudaStream_t stream, int *out) { return *out = 0, cudaSuccess; }
cudaError_t cudaStreamIsCapturing(cudaStream_t stream, enum cudaStreamCaptureStatus *out) {
  return *out = cudaStreamCaptureStatusNone, cudaSuccess;
}
cudaError_t cudaStreamGetCaptureInfo(cudaStream_t stream, enum cudaStreamCaptureStatus *out, unsigned long long *id,
                                     cudaGraph_t *graph, const cudaGraphNode_t **dependencies,
                                     const cudaGraphEdgeData **edges, size_t *count) {
  if (id) *id = 0;
  if (count) *count = 0;
  return *out = cudaStreamCaptureStatusNone, cudaSuccess;
}
cudaError_t cudaEventCreate(cudaEvent_t *out) { return *out = handle(), cudaSuccess; }
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *out, unsigned flags) { return *out = handle(), cudaSuccess; }
cudaError_t cudaEventElapsedTime(float *out, cudaEvent_t start, cudaEvent_t end) { return *out = 1, cudaSuccess; }

cudaError_t cudaFuncGetAttributes(struct cudaFuncAttributes *out, const void *function) {
  memset(out, 0, sizeof *out);
  int built = major * 10 + minor; /* torch has no code for 8.7 and 8.9 of their own: they run that for 8.0 and 8.6 */
  out->ptxVersion = out->binaryVersion = built == 87 ? 80 : built == 89 ? 86 : built;
  out->maxThreadsPerBlock = 1024, out->numRegs = 32, out->maxDynamicSharedSizeBytes = 48 << 10;
  return cudaSuccess;
}
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int *out, const void *function, int threads, size_t shared) {
  return *out = 2, cudaSuccess;
}
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *out, const void *function, int threads,
                                                                   size_t shared, unsigned flags) {
  return *out = 2, cudaSuccess;
}
cudaError_t cudaGetSymbolAddress(void **out, const void *symbol) {
  static char room[MIB];
  return *out = room, cudaSuccess;
}
static int nothing(void) { return 0; }

/* Expandable segments: ranges of addresses, and pages of memory mapped into them. A page's handle is its size. */
enum { OUT_OF_MEMORY = 2 };
static int reserve_addresses(void **out, size_t size) { return take(out, size, RANGE) ? OUT_OF_MEMORY : 0; }
static int free_addresses(void *address) { return give_back(address); }
static int create_page(size_t *handle, size_t size) {
  pthread_mutex_lock(&lock);
  started = 1;
  int fits = used + context + size <= total;
  if (fits) used += size, *handle = size;
  pthread_mutex_unlock(&lock);
  return fits ? 0 : OUT_OF_MEMORY;
}
static int release_page(size_t handle) {
  pthread_mutex_lock(&lock);
  used -= handle;
  pthread_mutex_unlock(&lock);
  return 0;
}
static int page_granularity(size_t *out) { return *out = GRANULE, 0; }

static const struct { const char *name; void *function; } driver[] = {
    {"cuMemAddressReserve", reserve_addresses}, {"cuMemAddressFree", free_addresses}, {"cuMemCreate", create_page},
    {"cuMemRelease", release_page}, {"cuMemGetAllocationGranularity", page_granularity},
};
cudaError_t cudaGetDriverEntryPointByVersion(const char *symbol, void **out, unsigned version, unsigned long long flags,
                                             enum cudaDriverEntryPointQueryResult *found) {
  if (found) *found = cudaDriverEntryPointSuccess;
  *out = (void *)nothing;
  for (size_t i = 0; i < sizeof driver / sizeof *driver; i++)
    if (!strcmp(symbol, driver[i].name)) *out = driver[i].function;
  return cudaSuccess;
}

/* -- what nvcc's code calls */

void **__cudaRegisterFatBinary(void *binary) {
  static void *registered[4];
  return registered;
}
cudaError_t __cudaGetKernel(void **out, const void *function) { return *out = (void *)function, cudaSuccess; }
cudaError_t __cudaPopCallConfiguration(dim3 *grid, dim3 *block, size_t *shared, void *stream) {
  memset(grid, 0, sizeof *grid), memset(block, 0, sizeof *block);
  return *shared = 0, *(void **)stream = 0, cudaSuccess;
}
