// The CUDA calls of samples/cpp_engine on host memory, so that its own logic runs without a GPU. Copies are reported.
#pragma once

#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>

enum cudaError_t { cudaSuccess = 0, cudaErrorInsufficientDriver = 35, cudaErrorNoDevice = 100, cudaErrorUnknown = 999 };
enum cudaMemcpyKind { cudaMemcpyHostToDevice = 1, cudaMemcpyDeviceToHost = 2 };
using cudaStream_t = void*;
constexpr unsigned cudaStreamNonBlocking = 1;

inline const char* cudaGetErrorString(cudaError_t status) {
    return status == cudaErrorNoDevice ? "no CUDA-capable device is detected" : "unknown error";
}

inline cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags) {
    if (std::getenv("DOUBLE_WITHOUT_GPU") != nullptr) return cudaErrorNoDevice;
    static int the_stream = 0;
    *stream = flags == cudaStreamNonBlocking ? &the_stream : nullptr;
    return cudaSuccess;
}

inline cudaError_t cudaStreamDestroy(cudaStream_t) { return cudaSuccess; }
inline cudaError_t cudaStreamSynchronize(cudaStream_t stream) { return stream ? cudaSuccess : cudaErrorUnknown; }

inline cudaError_t cudaMalloc(void** address, std::size_t bytes) {
    *address = std::malloc(bytes);
    return *address ? cudaSuccess : cudaErrorUnknown;
}

inline cudaError_t cudaFree(void* address) {
    std::free(address);
    return cudaSuccess;
}

inline cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind way, cudaStream_t on) {
    if (on == nullptr) return cudaErrorUnknown;
    std::fprintf(stderr, "%s %zu bytes\n", way == cudaMemcpyHostToDevice ? "upload" : "download", bytes);
    std::memcpy(to, from, bytes);
    return cudaSuccess;
}
