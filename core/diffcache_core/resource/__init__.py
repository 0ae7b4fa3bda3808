"""The `DiffusionCache` resource: its fields, rules, CRD, manifest and status."""
