"""The ablation of the RMPE paper (Fang et al., ICCV 2017, Table 3), as one command."""
