#include <cpuid.h>

#include <cstdlib>
#include <string>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/error.h"
#include "kernels/cpu/implementations.h"
#include "kernels/kernels.h"

namespace mha2mla::kernels {
namespace {

// {isa, linear, rms_norm, rope, turn, swiglu, store_rows, load_rows, attention, merge}. Best last.
constexpr KernelSet sets[] = {
    {Isa::portable, portable::linear, portable::rms_norm, portable::rope, portable::turn, portable::swiglu,
     portable::store_rows, portable::load_rows, portable::attention, portable::merge},
    {Isa::avx2, avx2::linear, avx2::rms_norm, portable::rope, avx2::turn, avx2::swiglu, avx2::store_rows,
     avx2::load_rows, avx2::attention, portable::merge},
    {Isa::avx512, avx512::linear, avx512::rms_norm, portable::rope, avx512::turn, avx512::swiglu, avx512::store_rows,
     avx2::load_rows, avx512::attention, portable::merge},
    {Isa::amx, amx::linear, avx512::rms_norm, portable::rope, avx512::turn, avx512::swiglu, avx512::store_rows,
     avx2::load_rows, amx::attention, portable::merge},
};

// AMX-BF16, AMX-TILE and AMX-INT8 of CPUID's leaf 7: Clang 14 has no names for them.
bool has_tiles() {
    constexpr unsigned bits = 1u << 22 | 1u << 24 | 1u << 25;
    unsigned a = 0, b = 0, c = 0, d = 0;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) != 0 && (d & bits) == bits;
}

// Linux lends the tile registers to a process that asks (Documentation/arch/x86/xstate.rst).
bool lends_tiles() {
    constexpr long request_permission = 0x1023;  // ARCH_REQ_XCOMP_PERM
    constexpr long tile_data = 18;               // XFEATURE_XTILEDATA
    return syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
}

// The compiler's run-time support also asks the operating system whether it saves the wide registers.
bool machine_runs(Isa isa) {
    __builtin_cpu_init();
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    switch (isa) {
        case Isa::portable: return true;
        case Isa::avx2: return avx2;
        case Isa::avx512:
            return avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                   __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
                   __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512vnni");
        case Isa::amx: return machine_runs(Isa::avx512) && has_tiles() && lends_tiles();
    }
    return false;
}

Isa best_isa() { return supported_isas().back(); }

std::string joined_names(const std::vector<Isa>& isas) {
    std::string names;
    for (const Isa isa : isas) names += (names.empty() ? "" : ", ") + std::string(name_of(isa));
    return names;
}

Isa isa_named(std::string_view name) {
    for (const KernelSet& set : sets) {
        if (name_of(set.isa) == name) return set.isa;
    }
    throw core::Error({.what = "unknown instruction set",
                       .expected = "portable, avx2, avx512 or amx",
                       .got = std::string(name),
                       .where = "environment variable MHA2MLA_ISA"});
}

Isa chosen_isa() {
    const char* name = std::getenv("MHA2MLA_ISA");
    return name == nullptr || *name == '\0' ? best_isa() : isa_named(name);
}

}  // namespace

const KernelSet& kernels(Isa isa) {
    for (const KernelSet& set : sets) {
        if (set.isa == isa && machine_runs(isa)) return set;
    }
    throw core::Error({.what = "this machine does not run the instruction set '" + std::string(name_of(isa)) + "'",
                       .expected = joined_names(supported_isas()),
                       .got = std::string(name_of(isa)),
                       .remedy = "unset MHA2MLA_ISA to let the machine choose"});
}

const KernelSet& kernels() {
    static const KernelSet& chosen = kernels(chosen_isa());
    return chosen;
}

std::vector<Isa> supported_isas() {
    std::vector<Isa> isas;
    for (const KernelSet& set : sets) {
        if (machine_runs(set.isa)) isas.push_back(set.isa);
    }
    return isas;
}

std::string_view name_of(Isa isa) {
    switch (isa) {
        case Isa::portable: return "portable";
        case Isa::avx2: return "avx2";
        case Isa::avx512: return "avx512";
        case Isa::amx: return "amx";
    }
    return "unknown";
}

}  // namespace mha2mla::kernels
