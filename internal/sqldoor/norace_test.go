//go:build !race

package sqldoor

const raceEnabled = false
