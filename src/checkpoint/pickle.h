#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace mha2mla::checkpoint {

/// Index of a value in Pickle::values: values refer to each other by index, so a cycle cannot leak.
using PickleRef = std::size_t;

struct PickleClass {
    std::string name;  ///< "torch.ByteStorage"
};

/// The bytes of one or more tensors: an entry `data/<key>` of the archive.
struct PickleStorage {
    std::string type;  ///< "torch.ByteStorage"
    std::string key;
    std::int64_t elements = 0;
};

/// A strided view of a storage. Offsets and strides in elements; not yet held against the storage's size.
struct PickleTensor {
    PickleStorage storage;
    std::int64_t offset = 0;
    std::vector<std::int64_t> shape;
    std::vector<std::int64_t> strides;
};

/// A list or a tuple.
struct PickleSequence {
    bool is_tuple = false;
    std::vector<PickleRef> items = {};
};

/// A dict or an OrderedDict, as pairs in file order.
struct PickleDict {
    std::vector<std::pair<PickleRef, PickleRef>> items;
};

using PickleValue = std::variant<std::monostate, bool, std::int64_t, double, std::string, PickleClass, PickleStorage,
                                 PickleTensor, PickleSequence, PickleDict>;  // monostate: None

/// A pickled object graph.
struct Pickle {
    std::vector<PickleValue> values;
    PickleRef root = 0;
};

/// Reads what torch.save writes for tensors and plain containers (pickle protocol 2). Nothing is ever executed: the
/// only callables known are torch._utils._rebuild_tensor_v2 and collections.OrderedDict, any other class or opcode is
/// an Error naming it. Depth, stack, memo and the number of values are bounded.
/// Source: Python's pickletools.py (opcodes), torch/serialization.py (persistent ids).
Pickle parse_pickle(std::span<const std::byte> bytes, const std::string& where);

}  // namespace mha2mla::checkpoint
