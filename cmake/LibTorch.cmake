# LibTorch::LibTorch from the Python wheel, without Torch's own CMake files: those ask for a CUDA toolkit wherever the wheel was built
# with CUDA. Looks in MHA2MLA_SITE_PACKAGES (default: the project's .venv), where ./dev unpacks the pinned wheels.

file(GLOB site_packages ${PROJECT_SOURCE_DIR}/.venv/lib/python3.*/site-packages)
set(MHA2MLA_SITE_PACKAGES "${site_packages}" CACHE PATH "The site-packages folder that holds torch")

set(torch_root ${MHA2MLA_SITE_PACKAGES}/torch)
if(NOT EXISTS ${torch_root}/lib/libtorch_cpu.so)
  message(FATAL_ERROR "LibTorch is not in '${MHA2MLA_SITE_PACKAGES}'. Run ./dev build, which installs it, point "
    "-DMHA2MLA_SITE_PACKAGES at a folder that holds torch, or build the runtime half alone with -DMHA2MLA_WORKSHOP=OFF.")
endif()

function(mha2mla_torch_library name)
  add_library(LibTorch::${name} SHARED IMPORTED GLOBAL)
  set_target_properties(LibTorch::${name} PROPERTIES IMPORTED_LOCATION ${torch_root}/lib/lib${name}.so)
endfunction()

mha2mla_torch_library(c10)
mha2mla_torch_library(torch_cpu)

# Without OpenMP, at::parallel_for would run on one thread and say nothing. It must be the one that LibTorch itself runs on.
file(GLOB torch_openmp ${torch_root}/lib/libgomp*.so*)
list(LENGTH torch_openmp torch_openmp_count)
if(NOT torch_openmp_count EQUAL 1)
  message(FATAL_ERROR "Expected one libgomp in ${torch_root}/lib, got '${torch_openmp}'. Use the wheel that requirements.txt names.")
endif()

add_library(LibTorch::LibTorch INTERFACE IMPORTED GLOBAL)
target_include_directories(LibTorch::LibTorch SYSTEM INTERFACE ${torch_root}/include ${torch_root}/include/torch/csrc/api/include)
target_link_libraries(LibTorch::LibTorch INTERFACE LibTorch::torch_cpu LibTorch::c10 ${torch_openmp})
# The wheel's headers include a newer {fmt} of their own, which hides the system's: whoever sees it must not ask the system's library for it.
target_compile_definitions(LibTorch::LibTorch INTERFACE FMT_HEADER_ONLY)
target_compile_options(LibTorch::LibTorch INTERFACE -fopenmp)
# The wheel's libraries find their own CUDA runtime and OpenMP through their rpath; the linker must look there, too.
target_link_options(LibTorch::LibTorch INTERFACE -Wl,-rpath,${torch_root}/lib
  -Wl,-rpath-link,${MHA2MLA_SITE_PACKAGES}/nvidia/cu13/lib)

if(MHA2MLA_CUDA)
  foreach(library c10_cuda torch_cuda)
    mha2mla_torch_library(${library})
  endforeach()
  # torch_cuda registers the CUDA kernels when it is loaded; nothing refers to it by symbol.
  target_link_options(LibTorch::LibTorch INTERFACE -Wl,--no-as-needed ${torch_root}/lib/libtorch_cuda.so -Wl,--as-needed)
  target_link_libraries(LibTorch::LibTorch INTERFACE LibTorch::c10_cuda)
endif()
