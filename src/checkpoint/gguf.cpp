#include "checkpoint/gguf.h"

#include "checkpoint/gguf_file.h"
#include "checkpoint/gguf_llama.h"
#include "checkpoint/gguf_source.h"
#include "checkpoint/gguf_tokenizer.h"
#include "checkpoint/gguf_vocabulary.h"
#include "core/file.h"

namespace mha2mla::checkpoint {

GgufModel read_gguf(std::span<const std::byte> bytes, const std::string& where) {
    const GgufFile file = parse_gguf(bytes, where);
    check_kind(file.metadata);
    const auto vocabulary = read_vocabulary(file.metadata);
    GgufModel model;
    model.config = llama_config(file, vocabulary);
    if (vocabulary) model.tokenizer_files = make_tokenizer_files(*vocabulary, model.config, where);
    model.tensors = std::make_shared<const GgufSource>(file, model.config);
    return model;
}

GgufModel open_gguf(const std::filesystem::path& path) {
    const auto file = std::make_shared<const core::MappedFile>(path);
    auto model = read_gguf(file->bytes(), path.string());
    // The tensors point into the mapping: the pointer that is handed out keeps both alive.
    const auto tensors = model.tensors;
    model.tensors = {tensors.get(), [file, tensors](const TensorSource*) {}};
    return model;
}

}  // namespace mha2mla::checkpoint
