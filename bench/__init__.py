"""What the machine costs, as ratios measured in one run: machines differ, and so do days."""
