package main

import (
	"bytes"
	_ "embed"
	"fmt"
	"io"
	"net/http"
	"text/template"
	"time"
)

//go:embed demo.yaml.tmpl
var configText string

var configTemplate = template.Must(template.New("demo.yaml").Parse(configText))

// Config writes the gateway's configuration for a layout: what --config prints, and what the gateway is started with.
func Config(layout Layout) ([]byte, error) {
	var out bytes.Buffer
	if err := configTemplate.Execute(&out, layout); err != nil {
		return nil, fmt.Errorf("write the configuration: %w", err)
	}
	return out.Bytes(), nil
}

// PrintConfig prints the configuration of the demo that is running, or else the one that Run would use now.
func PrintConfig(o Options) error {
	if text, ok := running(o.Ports); ok {
		_, err := o.Stdout.Write(text)
		return err
	}
	ls, layout, err := open(o.Ports)
	if err != nil {
		return err
	}
	ls.close()
	layout.Quiet = o.Quiet
	for _, note := range layout.Notes {
		fmt.Fprintf(o.Stderr, "demo: %s\n", note)
	}
	text, err := Config(layout)
	if err != nil {
		return err
	}
	_, err = o.Stdout.Write(text)
	return err
}

// configType and configMark are by which another process of the demo is known.
const (
	configType = "application/yaml; charset=utf-8"
	configMark = "# What Menshen's demo runs with."
)

// running asks a demo that already runs on the wanted ports for its configuration: without that, --config in a second
// terminal would tell of ports that nobody uses.
func running(ports Ports) ([]byte, bool) {
	if ports.Home == 0 {
		return nil, false
	}
	client := &http.Client{Timeout: time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Get(fmt.Sprintf("http://127.0.0.1:%d/config.yaml", ports.Home))
	if err != nil {
		return nil, false
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	if err != nil || response.Header.Get("Content-Type") != configType || !bytes.HasPrefix(text, []byte(configMark)) {
		return nil, false
	}
	return text, true
}
