//go:build race

package httpdoor

const raceDetector = true
