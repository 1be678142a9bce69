#pragma once

#include <cstddef>

namespace mha2mla::cache {

enum class PageSize {
    normal,
    huge,  ///< 2 MB pages where the system has them: fewer address translations for data that is streamed
};

/// Zeroed memory, 4,096-byte aligned, that the system provides on first touch: a large arena costs what is used of it.
/// Throws Error where the address space cannot be reserved.
class Arena {
public:
    Arena() = default;
    explicit Arena(std::size_t bytes, PageSize pages = PageSize::normal);
    ~Arena();
    Arena(Arena&& other) noexcept;
    Arena& operator=(Arena&& other) noexcept;

    std::byte* data() const { return data_; }
    std::size_t size() const { return size_; }

private:
    std::byte* data_ = nullptr;
    std::size_t size_ = 0;
};

/// `count` zeroed items of a plain type in an arena.
template <typename Item>
class ArenaArray {
public:
    ArenaArray() = default;
    explicit ArenaArray(std::size_t count) : arena_(count * sizeof(Item)) {}

    Item* data() const { return reinterpret_cast<Item*>(arena_.data()); }
    Item& operator[](std::size_t index) const { return data()[index]; }
    std::size_t size() const { return arena_.size() / sizeof(Item); }

private:
    Arena arena_;
};

}  // namespace mha2mla::cache
