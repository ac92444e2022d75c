# For machines where ROS 2 comes from PyPI wheels instead of /opt/ros. A ROS machine never loads this file.
# Use: cmake -DCMAKE_PROJECT_INCLUDE=<this file> …, also through `colcon build --cmake-args`.
include_guard(DIRECTORY)

# The environment that holds the wheels (a virtual environment, or the one pip makes for a build) is the ament prefix.
if(NOT DUALVIEW_WHEELS_PREFIX)
  find_package(Python3 REQUIRED COMPONENTS Interpreter)
  execute_process(
    COMMAND "${Python3_EXECUTABLE}" -c "import pathlib, ament_package; print(pathlib.Path(ament_package.__file__).resolve().parents[4])"
    OUTPUT_VARIABLE DUALVIEW_WHEELS_PREFIX
    OUTPUT_STRIP_TRAILING_WHITESPACE
    COMMAND_ERROR_IS_FATAL ANY)
endif()
list(APPEND CMAKE_PREFIX_PATH "${DUALVIEW_WHEELS_PREFIX}")
set(ENV{AMENT_PREFIX_PATH} "${DUALVIEW_WHEELS_PREFIX}:$ENV{AMENT_PREFIX_PATH}")

# rosidl's *__rosidl_generator_py targets export the folders of Python's and NumPy's headers. In the wheels these are folders of the
# container in which the wheels were built, and CMake stops at folders that are not there; for the package being built they lie in
# the virtual environment, and CMake stops at exported folders inside the source tree. Nobody needs the export: the generators find
# these headers by themselves.
function(dualview_drop_python_include_directories)
  get_property(imported DIRECTORY "${CMAKE_CURRENT_SOURCE_DIR}" PROPERTY IMPORTED_TARGETS)
  get_property(own DIRECTORY "${CMAKE_CURRENT_SOURCE_DIR}" PROPERTY BUILDSYSTEM_TARGETS)
  foreach(target IN LISTS imported own)
    get_target_property(directories ${target} INTERFACE_INCLUDE_DIRECTORIES)
    if(target MATCHES "__rosidl_generator_py$" AND directories)
      list(FILTER directories EXCLUDE REGEX "^/opt/python/|/numpy/_?core/include$")
      set_target_properties(${target} PROPERTIES INTERFACE_INCLUDE_DIRECTORIES "${directories}")
    endif()
  endforeach()
endfunction()
cmake_language(DEFER CALL dualview_drop_python_include_directories)
