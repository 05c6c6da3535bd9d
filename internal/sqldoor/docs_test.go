package sqldoor

import (
	"testing"

	"github.com/menshen-gateway/menshen/internal/config/configtest"
)

func TestManualExamples(t *testing.T) {
	if n := configtest.Markdown(t, "../../docs/sql.md"); n != 2 {
		t.Errorf("%d examples were found, want 2", n)
	}
}
