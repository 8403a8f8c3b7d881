"""Laws that hold for every plan, every schedule of failures and every crash."""
