//go:build race

package sqldoor

const raceEnabled = true
