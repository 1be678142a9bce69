#pragma once

namespace mha2mla::model {

/// From now on LibTorch's blocks on the CPU from core::large_block_bytes on are used again for others of about their
/// size: training asks for the same every step (gradients of the embedding, above all), and the system would clear each
/// page anew. When none that is free fits, all that are free go back to the system. In malloc's heap smaller blocks
/// settle in their place, and with windows of many lengths the process grows.
void keep_large_blocks();

}  // namespace mha2mla::model
