#include "checkpoint/pickle.h"

#include <algorithm>
#include <array>
#include <bit>
#include <fmt/format.h>

#include "checkpoint/pickle_stream.h"

namespace mha2mla::checkpoint {
namespace {

constexpr std::size_t max_pickle_bytes = 1 << 20;
constexpr std::size_t max_values = 1 << 16;

constexpr std::array known_classes{"torch._utils._rebuild_tensor_v2",
                                   "collections.OrderedDict",
                                   "torch.ByteStorage",
                                   "torch.CharStorage",
                                   "torch.ShortStorage",
                                   "torch.IntStorage",
                                   "torch.LongStorage",
                                   "torch.HalfStorage",
                                   "torch.BFloat16Storage",
                                   "torch.FloatStorage",
                                   "torch.DoubleStorage",
                                   "torch.BoolStorage",
                                   "torch.storage.UntypedStorage"};

/// A pickle is a program for a stack machine; this runs the few instructions that data needs.
class Machine {
public:
    Machine(std::span<const std::byte> bytes, const std::string& where) : stream_(bytes, where) {}

    Pickle run() {
        if (stream_.remaining() > max_pickle_bytes) stream_.fail("pickle is too large for one of plain tensors");
        if (stream_.u8() != 0x80 || stream_.u8() > 2) stream_.fail("is no pickle of protocol 2");
        while (step(stream_.u8())) {
        }
        if (stack_.size() != 1 || !marks_.empty()) stream_.fail("pickle ends with an unfinished value");
        pickle_.root = stack_.back();
        return std::move(pickle_);
    }

private:
    /// Runs one instruction; false at the end of the program.
    bool step(std::uint8_t opcode) {
        if (opcode == '.') return false;
        if (!step_scalar(opcode) && !step_container(opcode) && !step_memo(opcode)) {
            stream_.fail(fmt::format("pickle instruction 0x{:02x} is not allowed in a file of plain tensors", opcode));
        }
        return true;
    }

    bool step_scalar(std::uint8_t opcode) {
        switch (opcode) {
            case 'N': push(std::monostate{}); return true;
            case 0x88: push(true); return true;
            case 0x89: push(false); return true;
            case 'K': push(std::int64_t{stream_.u8()}); return true;
            case 'M': push(std::int64_t{stream_.u16()}); return true;
            case 'J': push(std::int64_t{static_cast<std::int32_t>(stream_.u32())}); return true;
            case 0x8a: push(stream_.long_integer()); return true;
            case 'G': push(stream_.big_endian_double()); return true;
            case 'X': push(stream_.text(stream_.u32())); return true;
            case 'c': push(read_class()); return true;
            default: return false;
        }
    }

    bool step_container(std::uint8_t opcode) {
        switch (opcode) {
            case '(': marks_.push_back(stack_.size()); return true;
            case ')': push(PickleSequence{.is_tuple = true}); return true;
            case ']': push(PickleSequence{}); return true;
            case '}': push(PickleDict{}); return true;
            case 't': push(PickleSequence{.is_tuple = true, .items = pop_to_mark()}); return true;
            case 0x85: push(PickleSequence{.is_tuple = true, .items = pop(1)}); return true;
            case 0x86: push(PickleSequence{.is_tuple = true, .items = pop(2)}); return true;
            case 0x87: push(PickleSequence{.is_tuple = true, .items = pop(3)}); return true;
            case 'a': append(pop(1)); return true;
            case 'e': append(pop_to_mark()); return true;
            case 's': set_items(pop(2)); return true;
            case 'u': set_items(pop_to_mark()); return true;
            case 'Q': push(load_storage(pop(1)[0])); return true;
            case 'R': reduce(); return true;
            default: return false;
        }
    }

    bool step_memo(std::uint8_t opcode) {
        switch (opcode) {
            case 'q': memo_[stream_.u8()] = top(); return true;
            case 'r': memo_[stream_.u32()] = top(); return true;
            case 'h': recall(stream_.u8()); return true;
            case 'j': recall(stream_.u32()); return true;
            default: return false;
        }
    }

    void push(PickleValue value) {
        if (pickle_.values.size() >= max_values) stream_.fail("pickle holds too many values");
        pickle_.values.push_back(std::move(value));
        push_ref(pickle_.values.size() - 1);
    }

    void push_ref(PickleRef ref) {
        if (stack_.size() >= max_values) stream_.fail("pickle nests too deeply");
        stack_.push_back(ref);
    }

    PickleRef top() {
        const std::size_t bottom = marks_.empty() ? 0 : marks_.back();
        if (stack_.size() <= bottom) stream_.fail("pickle takes from an empty stack");
        return stack_.back();
    }

    std::vector<PickleRef> pop(std::size_t count) {
        const std::size_t bottom = marks_.empty() ? 0 : marks_.back();
        if (stack_.size() - bottom < count) stream_.fail("pickle takes from an empty stack");
        std::vector<PickleRef> items(stack_.end() - static_cast<std::ptrdiff_t>(count), stack_.end());
        stack_.resize(stack_.size() - count);
        return items;
    }

    std::vector<PickleRef> pop_to_mark() {
        if (marks_.empty()) stream_.fail("pickle takes from an empty stack");
        auto items = pop(stack_.size() - marks_.back());
        marks_.pop_back();
        return items;
    }

    void recall(std::uint32_t key) {
        const auto found = memo_.find(key);
        if (found == memo_.end()) stream_.fail(fmt::format("pickle recalls value {}, which it never kept", key));
        push_ref(found->second);
    }

    template <typename T>
    T& as(PickleRef ref, const char* expected) {
        auto* value = std::get_if<T>(&pickle_.values[ref]);
        if (value == nullptr) stream_.fail(fmt::format("pickle has another value where {} belongs", expected));
        return *value;
    }

    PickleClass read_class() {
        const auto module = stream_.line();
        PickleClass type{module + "." + stream_.line()};
        if (std::find(known_classes.begin(), known_classes.end(), type.name) == known_classes.end()) {
            stream_.fail(fmt::format("pickle asks for '{}', which a file of plain tensors does not need", type.name));
        }
        return type;
    }

    void append(const std::vector<PickleRef>& items) {
        auto& list = as<PickleSequence>(top(), "a list");
        if (list.is_tuple) stream_.fail("pickle appends to a tuple");
        list.items.insert(list.items.end(), items.begin(), items.end());
    }

    void set_items(const std::vector<PickleRef>& items) {
        auto& dict = as<PickleDict>(top(), "a dict");
        if (items.size() % 2 != 0) stream_.fail("pickle has a key without a value");
        for (std::size_t i = 0; i < items.size(); i += 2) dict.items.emplace_back(items[i], items[i + 1]);
    }

    const std::vector<PickleRef>& tuple(PickleRef ref, std::size_t min_size) {
        const auto& sequence = as<PickleSequence>(ref, "a tuple");
        if (!sequence.is_tuple || sequence.items.size() < min_size)
            stream_.fail("pickle has a tuple that is too short");
        return sequence.items;
    }

    /// The persistent id of a storage: ("storage", class, key, device, elements).
    PickleStorage load_storage(PickleRef id) {
        const auto& items = tuple(id, 5);
        if (as<std::string>(items[0], "a storage") != "storage") stream_.fail("pickle refers to something unknown");
        PickleStorage storage{.type = as<PickleClass>(items[1], "a storage class").name,
                              .key = as<std::string>(items[2], "a storage key"),
                              .elements = as<std::int64_t>(items[4], "a number of elements")};
        if (!storage.type.ends_with("Storage") || storage.elements < 0) stream_.fail("pickle has an unusable storage");
        return storage;
    }

    void reduce() {
        const auto call = pop(2);
        const auto& function = as<PickleClass>(call[0], "a class").name;
        if (function == "collections.OrderedDict") {
            if (!tuple(call[1], 0).empty()) stream_.fail("pickle makes an OrderedDict from arguments");
            return push(PickleDict{});
        }
        if (function != known_classes[0]) stream_.fail(fmt::format("pickle calls '{}'", function));
        push(rebuild_tensor(tuple(call[1], 4)));
    }

    /// Arguments: storage, offset, size, stride, then flags without meaning for data.
    PickleTensor rebuild_tensor(const std::vector<PickleRef>& arguments) {
        PickleTensor tensor{.storage = as<PickleStorage>(arguments[0], "a storage"),
                            .offset = as<std::int64_t>(arguments[1], "an offset"),
                            .shape = integers(arguments[2]),
                            .strides = integers(arguments[3])};
        if (tensor.shape.size() != tensor.strides.size()) stream_.fail("pickled tensor has unequal sizes and strides");
        return tensor;
    }

    std::vector<std::int64_t> integers(PickleRef ref) {
        constexpr std::size_t max_rank = 8;
        const auto& items = tuple(ref, 0);
        if (items.size() > max_rank) stream_.fail("pickled tensor has too many dimensions");
        std::vector<std::int64_t> values;
        for (const auto item : items) values.push_back(as<std::int64_t>(item, "an integer"));
        return values;
    }

    PickleStream stream_;
    Pickle pickle_;
    std::vector<PickleRef> stack_;
    std::vector<std::size_t> marks_;  // stack heights
    std::map<std::uint32_t, PickleRef> memo_;
};

}  // namespace

Pickle parse_pickle(std::span<const std::byte> bytes, const std::string& where) { return Machine(bytes, where).run(); }

}  // namespace mha2mla::checkpoint
