package config

// ExportOptions say what Export prints.
type ExportOptions struct {
	MaskSecrets bool // secrets that were written out become ***; references to them stay
	Defaults    bool // every setting, not only those that were written
	canonical   bool
}

// Export prints.
func (c *Config) Export(o ExportOptions) []byte { return nil }
