"""Quality and speed, measured by commands: `script/bench NAME`. Figures go into RESULTS.md."""
