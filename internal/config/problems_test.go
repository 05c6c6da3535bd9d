package config

import "testing"

func problems(t *testing.T, input string) string {
	_, err := Parse(caseFiles(input)...)
	if err == nil {
		return "fine"
	}
	if _, ok := err.(Problems); !ok {
		t.Errorf("an error that is no Problems: %T", err)
	}
	return err.Error()
}

func TestSyntax(t *testing.T)  { cases(t, "testdata/syntax.txt", problems) }
func TestRefused(t *testing.T) { cases(t, "testdata/refused.txt", problems) }

func TestChecked(t *testing.T) {
	t.Setenv("MENSHEN_TEST_ADDRESS", "nonsense")
	t.Setenv("MENSHEN_TEST_NESTED", "a ${env:HOME}")
	t.Setenv("MENSHEN_TEST_WORD", "word")
	cases(t, "testdata/checked.txt", problems)
}
