#pragma once

#include <string>

#include "checkpoint/gguf_vocabulary.h"
#include "core/json.h"

namespace mha2mla::checkpoint {

/// The merges of a sentencepiece BPE vocabulary, best first, as tokenizer.json lists them: [["t", "h"], ...]. Every way
/// to cut a piece into two others is a merge, ranked by the piece's score, then by its id, then longest left part
/// first: so runs of spaces, whose pieces share one score, come out as from sentencepiece. Throws Error on pieces
/// longer than any tokenizer's.
core::OrderedJson rebuild_merges(const GgufVocabulary& vocabulary, const std::string& where);

}  // namespace mha2mla::checkpoint
