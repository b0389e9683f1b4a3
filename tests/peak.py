"""The peak memory of a process that a test starts."""

# A child's ru_maxrss begins with the size of the process that started it (Linux keeps it over exec), so a suite that has grown would be
# measured instead. The high-water mark of the address space begins anew.
PEAK = """
def peak_mb():
    try:
        lines = open("/proc/self/status").read().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1e3
    except (OSError, StopIteration):
        import resource, sys
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)
"""
