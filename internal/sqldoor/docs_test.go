package sqldoor

import (
	"testing"

	"github.com/menshen-gateway/menshen/internal/config/configtest"
)

func TestManualExamples(t *testing.T) {
	if n := configtest.Markdown(t, "../../docs/sql.md"); n < 4 {
		t.Errorf("%d examples were found, want 4 or more", n)
	}
}
