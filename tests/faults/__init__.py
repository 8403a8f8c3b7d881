"""Real faults: killed processes, damaged files, full and locked disks."""
