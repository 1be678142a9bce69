#include <algorithm>
#include <array>
#include <cmath>
#include <fmt/format.h>

#include "finetune/training_log.h"

namespace mha2mla::finetune {
namespace {

constexpr double width = 720;
constexpr double height = 400;
constexpr double left = 70;
constexpr double right = 20;
constexpr double top = 30;
constexpr double bottom = 50;
constexpr std::array colours{"#1f6feb", "#d1570a", "#2da44e"};  // by objective
constexpr double smallest_loss = 1e-12;

struct Axes {
    double tokens;  // at the right end
    double low;     // log10 of the loss at the bottom
    double high;

    double x(std::int64_t at) const { return left + (width - left - right) * static_cast<double>(at) / tokens; }
    double y(double loss) const {
        return top + (height - top - bottom) * (high - std::log10(std::max(loss, smallest_loss))) / (high - low);
    }
};

Axes axes_of(const std::vector<LogEntry>& entries) {
    Axes axes{1, INFINITY, -INFINITY};
    for (const auto& entry : entries) {
        const double power = std::log10(std::max(entry.loss, smallest_loss));
        axes.tokens = std::max(axes.tokens, static_cast<double>(entry.tokens));
        axes.low = std::min(axes.low, power);
        axes.high = std::max(axes.high, power);
    }
    if (entries.empty()) axes.low = axes.high = 0;
    constexpr double margin = 0.05;
    return {axes.tokens, axes.low - margin, axes.high + margin};
}

std::string text(double x, double y, const char* anchor, const std::string& words) {
    return fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"{}\">{}</text>\n", x, y, anchor, words);
}

/// Five lines across, with the losses that they stand for.
std::string grid(const Axes& axes) {
    std::string svg;
    constexpr int lines = 5;
    for (int i = 0; i < lines; ++i) {
        const double loss = std::pow(10.0, axes.low + (axes.high - axes.low) * i / (lines - 1));
        const double y = axes.y(loss);
        svg += fmt::format("<line x1=\"{}\" y1=\"{:.1f}\" x2=\"{}\" y2=\"{:.1f}\" stroke=\"#ddd\"/>\n", left, y,
                           width - right, y);
        svg += text(left - 8, y + 4, "end", fmt::format("{:.3g}", loss));
    }
    for (const double share : {0.0, 0.5, 1.0}) {
        const auto tokens = std::llround(share * axes.tokens);
        svg += text(axes.x(tokens), height - bottom + 20, "middle", fmt::format("{}", tokens));
    }
    return svg + text((left + width) / 2, height - 10, "middle", "tokens");
}

/// The steps [begin, end), all of one objective.
std::string curve(const Axes& axes, const std::vector<LogEntry>& entries, std::size_t begin, std::size_t end) {
    std::string points;
    for (std::size_t i = begin; i < end; ++i) {
        points += fmt::format("{:.1f},{:.1f} ", axes.x(entries[i].tokens), axes.y(entries[i].loss));
    }
    const auto* colour = colours.at(static_cast<std::size_t>(entries[begin].objective));
    return fmt::format("<polyline fill=\"none\" stroke=\"{}\" stroke-width=\"1.5\" points=\"{}\"/>\n", colour, points) +
           fmt::format("<g fill=\"{}\">{}</g>\n", colour,
                       text(axes.x(entries[begin].tokens) + 4, top - 10, "start", name_of(entries[begin].objective)));
}

}  // namespace

std::string loss_plot(const std::vector<LogEntry>& entries) {
    const Axes axes = axes_of(entries);
    std::string svg = fmt::format(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {0} {1}\" font-family=\"sans-serif\" "
        "font-size=\"12\">\n"
        "<rect width=\"{0}\" height=\"{1}\" fill=\"white\"/>\n",
        width, height);
    svg += grid(axes);
    for (std::size_t begin = 0, end = 0; begin < entries.size(); begin = end) {
        while (end < entries.size() && entries[end].objective == entries[begin].objective) ++end;
        svg += curve(axes, entries, begin, end);
    }
    return svg + "</svg>\n";
}

}  // namespace mha2mla::finetune
