// The few CUDA calls that an engine needs: memory, copies, a stream.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <string>

#include "golden.hpp"

namespace sait {

inline void check(cudaError_t status, const char* doing) {
    if (status == cudaSuccess) return;
    const std::string reason = cudaGetErrorString(status), code = std::to_string(static_cast<int>(status));
    const bool no_gpu = status == cudaErrorInsufficientDriver || status == cudaErrorNoDevice;
    const char* hint = no_gpu ? "; an NVIDIA GPU and a driver for this CUDA are needed" : "";
    throw Failure("CUDA cannot " + std::string(doing) + ": " + reason + " (" + code + ")" + hint);
}

// A stream of its own, so that nothing else's work is waited for.
class Stream {
public:
    Stream() { check(cudaStreamCreateWithFlags(&handle_, cudaStreamNonBlocking), "make a stream on a GPU"); }
    Stream(const Stream&) = delete;
    Stream& operator=(const Stream&) = delete;
    ~Stream() { cudaStreamDestroy(handle_); }

    cudaStream_t handle() const { return handle_; }

    // The source has to stay until the next wait.
    void upload(void* target, const void* source, std::size_t bytes) const {
        check(cudaMemcpyAsync(target, source, bytes, cudaMemcpyHostToDevice, handle_), "copy to the GPU");
    }

    void download(void* target, const void* source, std::size_t bytes) const {
        check(cudaMemcpyAsync(target, source, bytes, cudaMemcpyDeviceToHost, handle_), "copy from the GPU");
    }

    void wait() const { check(cudaStreamSynchronize(handle_), "finish its work"); }

private:
    cudaStream_t handle_ = nullptr;
};

// GPU memory of a fixed size.
class DeviceBuffer {
public:
    explicit DeviceBuffer(std::size_t bytes) { check(cudaMalloc(&address_, bytes > 0 ? bytes : 1), "allocate memory"); }
    DeviceBuffer(const DeviceBuffer&) = delete;
    DeviceBuffer& operator=(const DeviceBuffer&) = delete;
    ~DeviceBuffer() { cudaFree(address_); }

    void* address() const { return address_; }

private:
    void* address_ = nullptr;
};

}  // namespace sait
