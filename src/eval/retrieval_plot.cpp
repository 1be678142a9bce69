#include <algorithm>
#include <cmath>
#include <fmt/format.h>
#include <iterator>
#include <set>

#include "eval/retrieval.h"

namespace mha2mla::eval {
namespace {

constexpr double left = 80, right = 20, top = 50, bottom = 60;
constexpr double cell_width = 72, cell_height = 36;

struct Colour {
    double red, green, blue;
};
constexpr Colour lost{214, 69, 65}, half{245, 214, 110}, found{60, 160, 90};

/// From red over yellow to green.
std::string colour_of(double score) {
    const Colour& from = score < 0.5 ? lost : half;
    const Colour& to = score < 0.5 ? half : found;
    const double share = std::clamp(score < 0.5 ? 2 * score : 2 * score - 1, 0.0, 1.0);
    const auto mix = [&](double a, double b) { return static_cast<int>(std::lround(a + (b - a) * share)); };
    return fmt::format("#{:02x}{:02x}{:02x}", mix(from.red, to.red), mix(from.green, to.green),
                       mix(from.blue, to.blue));
}

std::string escaped(std::string_view text) {
    std::string result;
    for (const char c : text) {
        if (c == '<') {
            result += "&lt;";
        } else if (c == '&') {
            result += "&amp;";
        } else {
            result += c;
        }
    }
    return result;
}

std::string text(double x, double y, const char* anchor, std::string_view words) {
    return fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"{}\">{}</text>\n", x, y, anchor, escaped(words));
}

/// Where on its axis a value lies: the number of smaller ones.
double place(const std::set<int>& values, int value) {
    return static_cast<double>(std::distance(values.begin(), values.find(value)));
}

std::string axes(const std::set<int>& lengths, const std::set<int>& depths) {
    const double end = top + cell_height * static_cast<double>(depths.size());
    std::string svg;
    for (const int length : lengths) {
        svg += text(left + cell_width * (place(lengths, length) + 0.5), end + 18, "middle", fmt::to_string(length));
    }
    for (const int depth : depths) {
        svg += text(left - 8, top + cell_height * (place(depths, depth) + 0.5) + 4, "end", fmt::format("{} %", depth));
    }
    svg +=
        text(left + cell_width * static_cast<double>(lengths.size()) / 2, end + 42, "middle", "tokens of the prompt");
    return svg + text(left - 8, top - 10, "end", "depth");
}

}  // namespace

std::string needle_heat_map(std::span<const NeedleResult> results, std::string_view title) {
    std::set<int> lengths, depths;
    for (const auto& result : results) {
        lengths.insert(result.cell.length);
        depths.insert(result.cell.depth);
    }
    std::string svg = fmt::format(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {0} {1}\" font-family=\"sans-serif\" "
        "font-size=\"12\">\n<rect width=\"{0}\" height=\"{1}\" fill=\"white\"/>\n",
        left + right + cell_width * static_cast<double>(std::max<std::size_t>(lengths.size(), 4)),
        top + bottom + cell_height * static_cast<double>(depths.size()));
    svg += text(left, 22, "start", title);
    for (const auto& result : results) {
        const double x = left + cell_width * place(lengths, result.cell.length);
        const double y = top + cell_height * place(depths, result.cell.depth);
        svg += fmt::format("<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" fill=\"{}\" stroke=\"white\"/>\n", x, y,
                           cell_width, cell_height, colour_of(result.score));
        svg += text(x + cell_width / 2, y + cell_height / 2 + 4, "middle", fmt::format("{:.0f}", 100 * result.score));
    }
    return svg + axes(lengths, depths) + "</svg>\n";
}

}  // namespace mha2mla::eval
