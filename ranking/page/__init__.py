"""The page of a job, `report.html`: what was decided and why, drawn for people. Files to material, material to HTML; no scripts, nothing from outside."""
