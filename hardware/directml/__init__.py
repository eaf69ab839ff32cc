"""Microsoft's own DirectML.dll on Linux, under Wine, with Vulkan computed by the CPU. README.md says what it is."""
