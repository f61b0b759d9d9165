// Lists what a golden file holds: name, element type, shape and sum of each array. Needs neither CUDA nor TensorRT.
//
//     list_golden ARTIFACT/golden.npz
#include <cstdio>
#include <exception>
#include <numeric>

#include "golden.hpp"

namespace {

template <typename T>
double sum_of(const sait::Array& array) {
    const std::vector<T> values = array.values<T>();
    return std::accumulate(values.begin(), values.end(), 0.0);
}

double sum(const sait::Array& array) {
    if (array.dtype == "float32") return sum_of<float>(array);
    if (array.dtype == "int32") return sum_of<std::int32_t>(array);
    return sum_of<std::uint8_t>(array);
}

}  // namespace

int main(int count, char** words) {
    if (count != 2) {
        std::fprintf(stderr, "error: give one golden file: list_golden ARTIFACT/golden.npz\n");
        return 2;
    }
    try {
        for (const auto& [name, array] : sait::read_npz(words[1])) {
            const std::string shape = sait::text(array.shape);
            std::printf("%s %s %s sum %.9g\n", name.c_str(), array.dtype.c_str(), shape.c_str(), sum(array));
        }
    } catch (const std::exception& error) {
        std::fprintf(stderr, "error: %s\n", error.what());
        return 2;
    }
}
