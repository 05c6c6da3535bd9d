package test

import (
	"path/filepath"
	"testing"

	"github.com/menshen-gateway/menshen/internal/config/configtest"
)

// Every whole configuration in the documents loads, and the schema accepts it.
func TestExamplesInDocuments(t *testing.T) {
	documents, err := filepath.Glob("../docs/*.md")
	must(t, err)
	if len(documents) < 4 {
		t.Fatalf("only %d documents are there", len(documents))
	}
	for _, document := range documents {
		configtest.Markdown(t, document)
	}
	// The README's are what a newcomer begins with: one for each door.
	if n := configtest.Markdown(t, "../README.md"); n != 2 {
		t.Errorf("the README has %d whole configurations, want one for each door", n)
	}
}
