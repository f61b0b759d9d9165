#include "golden.hpp"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <fstream>
#include <iterator>

namespace sait {
namespace {

// Part of a file; whatever is read through it lies within.
class View {
public:
    View(const unsigned char* data, std::size_t size) : data_(data), size_(size) {}

    std::size_t size() const { return size_; }
    const unsigned char* begin() const { return data_; }
    const unsigned char* end() const { return data_ + size_; }

    View part(std::size_t at, std::size_t size) const {
        if (at > size_ || size > size_ - at) throw Failure("it ends too early");
        return {data_ + at, size};
    }

    View from(std::size_t at) const { return part(at, at > size_ ? 0 : size_ - at); }

    std::uint32_t number(std::size_t at, std::size_t bytes) const {
        const View field = part(at, bytes);
        std::uint32_t value = 0;
        for (std::size_t i = bytes; i-- > 0;) value = value << 8 | field.data_[i];
        return value;
    }

    std::string string() const { return {begin(), end()}; }

private:
    const unsigned char* data_;
    std::size_t size_;
};

constexpr std::uint32_t END_OF_ARCHIVE = 0x06054b50, ENTRY = 0x02014b50, LOCAL_HEADER = 0x04034b50;
constexpr std::size_t END_SIZE = 22, ENTRY_SIZE = 46, LOCAL_SIZE = 30, MOST_COMMENT = 0xffff;

std::uint32_t crc32(View bytes) {
    static const std::array<std::uint32_t, 256> table = [] {
        std::array<std::uint32_t, 256> made{};
        for (std::uint32_t i = 0; i < made.size(); ++i) {
            made[i] = i;
            for (int bit = 0; bit < 8; ++bit) made[i] = made[i] & 1 ? made[i] >> 1 ^ 0xedb88320u : made[i] >> 1;
        }
        return made;
    }();
    std::uint32_t sum = 0xffffffffu;
    for (unsigned char byte : bytes) sum = sum >> 8 ^ table[(sum ^ byte) & 0xff];
    return ~sum;
}

// The record at the archive's end, before a comment that NumPy does not write but others may.
View end_record(View file) {
    for (std::size_t back = END_SIZE; back <= std::min(file.size(), END_SIZE + MOST_COMMENT); ++back) {
        if (file.number(file.size() - back, 4) == END_OF_ARCHIVE) return file.from(file.size() - back);
    }
    throw Failure("it is no zip archive, or not all of one");
}

// What stands behind "'name': " in the header of an .npy file.
std::string field(const std::string& header, const std::string& name) {
    const std::string key = "'" + name + "': ";
    const std::size_t at = header.find(key);
    if (at == std::string::npos) throw Failure("its header lacks " + name);
    return header.substr(at + key.size());
}

// What stands between two characters.
std::string between(const std::string& from, char opening, char closing) {
    const std::size_t end = from.find(closing, 1);
    if (from.empty() || from[0] != opening || end == std::string::npos) throw Failure("its header is not NumPy's");
    return from.substr(1, end - 1);
}

Shape shape_of(const std::string& header) {
    const std::string inside = between(field(header, "shape"), '(', ')');
    Shape shape;
    for (const char* at = inside.c_str(); *at != '\0';) {
        char* end = nullptr;
        const std::int64_t size = std::strtoll(at, &end, 10);
        if (end == at || size < 0) throw Failure("its shape (" + inside + ") is none");
        shape.push_back(size);
        at = end + std::strspn(end, ", ");
    }
    return shape;
}

struct Kind {
    std::string dtype;
    std::size_t size;
};

Kind kind_of(const std::string& header) {
    static const std::map<std::string, Kind> kinds = {
        {"<f4", {"float32", 4}}, {"<i4", {"int32", 4}}, {"|u1", {"uint8", 1}}};
    const std::string code = between(field(header, "descr"), '\'', '\'');
    const auto found = kinds.find(code);
    if (found == kinds.end()) throw Failure("its elements are " + code + ", which no golden file has");
    return found->second;
}

Array read_npy(View file) {
    if (file.size() < 10 || file.part(0, 6).string() != "\x93NUMPY") throw Failure("it is no .npy file");
    const std::size_t length_bytes = file.number(6, 1) == 1 ? 2 : 4;
    const std::size_t length = file.number(8, length_bytes);
    const std::string header = file.part(8 + length_bytes, length).string();
    const View elements = file.from(8 + length_bytes + length);
    if (field(header, "fortran_order").rfind("False", 0) != 0) throw Failure("it is in Fortran's order");
    const Kind kind = kind_of(header);
    const Shape shape = shape_of(header);
    std::size_t left = elements.size() / kind.size, count = 1;
    for (std::int64_t size : shape) {
        if (size > 0 && count > left / static_cast<std::size_t>(size)) throw Failure("it is shorter than its shape");
        count *= static_cast<std::size_t>(size);
    }
    if (count * kind.size != elements.size()) throw Failure("it is longer than its shape");
    return {kind.dtype, shape, {elements.begin(), elements.end()}};
}

// The bytes of one entry of the archive's table.
View content(View file, View entry) {
    if (entry.number(10, 2) != 0) throw Failure("it is compressed; numpy.savez does not, savez_compressed does");
    const std::size_t size = entry.number(24, 4), at = entry.number(42, 4);
    if (size == 0xffffffffu || at == 0xffffffffu) throw Failure("it is over 4 GiB");
    const View local = file.part(at, LOCAL_SIZE);
    if (local.number(0, 4) != LOCAL_HEADER) throw Failure("it is not where the archive says");
    const View bytes = file.part(at + LOCAL_SIZE + local.number(26, 2) + local.number(28, 2), size);
    if (crc32(bytes) != entry.number(16, 4)) throw Failure("its checksum is another");
    return bytes;
}

Arrays read_archive(View file) {
    const View end = end_record(file);
    View table = file.part(end.number(16, 4), end.number(12, 4));
    Arrays arrays;
    for (std::uint32_t left = end.number(10, 2); left > 0; --left) {
        if (table.number(0, 4) != ENTRY) throw Failure("its table of contents is damaged");
        const std::size_t name_size = table.number(28, 2);
        std::string name = table.part(ENTRY_SIZE, name_size).string();
        try {
            Array array = read_npy(content(file, table.part(0, ENTRY_SIZE)));
            arrays[name.substr(0, name.rfind(".npy"))] = std::move(array);
        } catch (const Failure& failure) {
            throw Failure(name + ": " + failure.what());
        }
        table = table.from(ENTRY_SIZE + name_size + table.number(30, 2) + table.number(32, 2));
    }
    return arrays;
}

}  // namespace

Bytes read_bytes(const std::filesystem::path& path) {
    if (!std::filesystem::exists(path)) throw Failure(path.string() + " does not exist");
    std::ifstream file(path, std::ios::binary);
    if (!std::filesystem::is_regular_file(path) || !file) throw Failure(path.string() + " cannot be read");
    Bytes bytes(static_cast<std::size_t>(std::filesystem::file_size(path)));
    file.read(reinterpret_cast<char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
    if (!file) throw Failure(path.string() + " cannot be read to its end");
    return bytes;
}

Arrays read_npz(const std::filesystem::path& path, const std::string& hint) {
    const Bytes bytes = read_bytes(path);
    try {
        return read_archive({bytes.data(), bytes.size()});
    } catch (const Failure& failure) {
        throw Failure(path.string() + " cannot be read (" + failure.what() + "); " + hint);
    }
}

std::string text(const Shape& shape) {
    std::string joined;
    for (std::int64_t size : shape) joined += (joined.empty() ? "" : ", ") + std::to_string(size);
    return "[" + joined + "]";
}

}  // namespace sait
