# What `cmake --install` puts where. The libraries are found again by pkg-config (mirzam.pc) or by
# find_package(mirzam), target mirzam::mirzam. Every path is relative to the prefix, so an installed
# tree may be moved.
include(CMakePackageConfigHelpers)
set(package_dir "${CMAKE_INSTALL_LIBDIR}/cmake/mirzam")
set(pkgconfig_dir "${CMAKE_INSTALL_LIBDIR}/pkgconfig")

install(TARGETS mirzam_shared EXPORT mirzamTargets LIBRARY DESTINATION "${CMAKE_INSTALL_LIBDIR}")
install(TARGETS mirzam_static ARCHIVE DESTINATION "${CMAKE_INSTALL_LIBDIR}")
install(TARGETS mirzam_cli RUNTIME DESTINATION "${CMAKE_INSTALL_BINDIR}")
install(FILES include/mirzam.h DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}")
install(FILES docs/mirzam.1 DESTINATION "${CMAKE_INSTALL_MANDIR}/man1")
install(FILES scripts/completion/mirzam.bash
  DESTINATION "${CMAKE_INSTALL_DATADIR}/bash-completion/completions" RENAME mirzam)
install(DIRECTORY data/ DESTINATION "${CMAKE_INSTALL_DATADIR}/mirzam")
install(FILES LICENSE README.md CHANGELOG.md DESTINATION "${CMAKE_INSTALL_DOCDIR}")

# CMake package
install(EXPORT mirzamTargets NAMESPACE mirzam:: DESTINATION "${package_dir}")
configure_package_config_file(cmake/mirzamConfig.cmake.in mirzamConfig.cmake INSTALL_DESTINATION "${package_dir}")
write_basic_package_version_file(mirzamConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES "${CMAKE_CURRENT_BINARY_DIR}/mirzamConfig.cmake" "${CMAKE_CURRENT_BINARY_DIR}/mirzamConfigVersion.cmake"
  DESTINATION "${package_dir}")

# pkg-config; what only a static link needs is private
file(RELATIVE_PATH pc_to_prefix "/prefix/${pkgconfig_dir}" "/prefix")
set(pc_private_libs "${OpenMP_C_FLAGS} -lpthread -lm")
if(MIRZAM_ONEDNN)
  string(PREPEND pc_private_libs "-ldnnl ")
endif()
if(MIRZAM_URING AND URING_FOUND)
  set(pc_private_uring " liburing")
endif()
configure_file(cmake/mirzam.pc.in mirzam.pc @ONLY)
install(FILES "${CMAKE_CURRENT_BINARY_DIR}/mirzam.pc" DESTINATION "${pkgconfig_dir}")
