/* The driver: there is always a current context. */
int cuCtxGetCurrent(void **out) { return *out = (void *)64, 0; }
