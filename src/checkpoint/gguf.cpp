#include "checkpoint/gguf.h"

#include <utility>

#include "checkpoint/gguf_file.h"
#include "checkpoint/gguf_llama.h"
#include "checkpoint/gguf_source.h"
#include "checkpoint/gguf_tokenizer.h"
#include "checkpoint/gguf_vocabulary.h"
#include "core/file.h"

namespace mha2mla::checkpoint {

namespace {

GgufModel read(std::span<const std::byte> bytes, const std::string& where,
               std::shared_ptr<const core::MappedFile> mapping) {
    const GgufFile file = parse_gguf(bytes, where);
    check_kind(file.metadata);
    const auto vocabulary = read_vocabulary(file.metadata);
    GgufModel model;
    model.config = llama_config(file, vocabulary);
    if (vocabulary) model.tokenizer_files = make_tokenizer_files(*vocabulary, model.config, where);
    model.tensors = std::make_shared<const GgufSource>(file, model.config, std::move(mapping));
    return model;
}

}  // namespace

GgufModel read_gguf(std::span<const std::byte> bytes, const std::string& where) { return read(bytes, where, nullptr); }

GgufModel open_gguf(const std::filesystem::path& path) {
    const auto file = std::make_shared<const core::MappedFile>(path);
    return read(file->bytes(), path.string(), file);
}

}  // namespace mha2mla::checkpoint
