package main

import (
	"encoding/json"
	"fmt"

	"github.com/goccy/go-yaml"
	"github.com/spf13/cobra"

	"github.com/menshen-gateway/menshen/internal/config"
	"github.com/menshen-gateway/menshen/internal/httpdoor"
)

func configCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "config",
		Short: "The configuration language: its schema, the effective configuration, differences",
		Args:  cobra.ArbitraryArgs,
		RunE:  group,
	}
	c.FParseErrWhitelist.UnknownFlags = true
	c.SuggestionsMinimumDistance = 2
	c.AddCommand(schemaCommand(), exportCommand(), diffCommand())
	return c
}

func schemaCommand() *cobra.Command {
	var output string
	c := &cobra.Command{
		Use:   "schema",
		Short: "Print the JSON Schema of the configuration, for editors",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := checkOutput(output); err != nil { // both forms are the same: a schema is JSON
				return err
			}
			_, err := c.OutOrStdout().Write(config.Schema(httpdoor.PolicyKinds()...))
			return err
		},
	}
	outputFlag(c, &output)
	return c
}

func exportCommand() *cobra.Command {
	var path, output string
	var defaults, mask bool
	c := &cobra.Command{
		Use:   "export -c FILE|DIR",
		Short: "Print the merged configuration in one piece; references stay references",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := checkOutput(output); err != nil {
				return err
			}
			cfg, err := load(path)
			if err != nil {
				return err
			}
			text := cfg.Export(config.ExportOptions{Defaults: defaults, MaskSecrets: mask})
			if output == "json" {
				if text, err = yaml.YAMLToJSON(text); err != nil {
					return err
				}
				return printJSON(c.OutOrStdout(), json.RawMessage(text))
			}
			_, err = c.OutOrStdout().Write(text)
			return err
		},
	}
	configFlag(c, &path)
	outputFlag(c, &output)
	c.Flags().BoolVar(&defaults, "defaults", false, "also print settings that were left at their default")
	c.Flags().BoolVar(&mask, "mask-secrets", false, "print *** for secrets that are written out")
	return c
}

func diffCommand() *cobra.Command {
	var output string
	c := &cobra.Command{
		Use:   "diff A B",
		Short: "Print what differs between two configurations, in effect",
		Args:  two,
		RunE: func(c *cobra.Command, args []string) error {
			if err := checkOutput(output); err != nil {
				return err
			}
			a, err := load(args[0])
			if err != nil {
				return err
			}
			b, err := load(args[1])
			if err != nil {
				return err
			}
			changes := config.Diff(a, b)
			if output == "json" {
				type change struct {
					Path   string `json:"path"`
					Before string `json:"before,omitempty"`
					After  string `json:"after,omitempty"`
				}
				list := []change{}
				for _, one := range changes {
					list = append(list, change(one))
				}
				return printJSON(c.OutOrStdout(), list)
			}
			for _, one := range changes {
				fmt.Fprintln(c.OutOrStdout(), one)
			}
			return nil
		},
	}
	outputFlag(c, &output)
	return c
}
