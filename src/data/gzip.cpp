#include "data/gzip.h"

#include <zlib.h>

#include <algorithm>
#include <array>

#include "core/error.h"
#include "core/file.h"
#include "data/windows.h"

namespace mha2mla::data {
namespace {

constexpr int gzip_only = 16;  // added to the window bits: no zlib header is taken for one

/// zlib's state, released on every way out.
class Inflater {
public:
    Inflater() { core::invariant(inflateInit2(&stream_, gzip_only + MAX_WBITS) == Z_OK, "zlib starts"); }
    ~Inflater() { inflateEnd(&stream_); }
    Inflater(const Inflater&) = delete;
    Inflater& operator=(const Inflater&) = delete;

    z_stream& stream() { return stream_; }

private:
    z_stream stream_ = {};
};

[[noreturn]] void fail(const std::string& what, const std::string& where) {
    throw core::Error({.what = what, .where = where, .remedy = "download the file again"});
}

}  // namespace

std::string gunzip(std::string_view bytes, const std::string& where, std::size_t max_bytes) {
    Inflater inflater;
    z_stream& stream = inflater.stream();
    std::string text;
    std::array<char, 1 << 16> piece;
    int status = Z_STREAM_END;
    while (!bytes.empty() || (status == Z_OK && stream.avail_out == 0)) {  // a full piece: more may be held back
        if (status == Z_STREAM_END) inflateReset(&stream);                 // the next member
        const std::size_t in = std::min<std::size_t>(bytes.size(), 1 << 30);
        stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(bytes.data()));  // zlib does not write to it
        stream.avail_in = static_cast<uInt>(in);
        stream.next_out = reinterpret_cast<Bytef*>(piece.data());
        stream.avail_out = static_cast<uInt>(piece.size());
        status = inflate(&stream, Z_NO_FLUSH);
        if (status == Z_BUF_ERROR) break;
        if (status != Z_OK && status != Z_STREAM_END) fail("the gzip file is damaged", where);
        const std::size_t out = piece.size() - stream.avail_out;
        if (text.size() + out > max_bytes) fail("the gzip file stands for too many bytes", where);
        text.append(piece.data(), out);
        bytes.remove_prefix(in - stream.avail_in);
    }
    if (status != Z_STREAM_END) fail("the gzip file is cut off", where);
    return text;
}

std::string read_maybe_gzipped(const std::filesystem::path& path) {
    if (path.extension() != ".gz") return read_text_file(path);
    return checked_text(gunzip(core::read_text(path), path.string()), path.string());
}

}  // namespace mha2mla::data
