//go:build race

package poll

// parker under the race detector, which does not know the scheduler's own ways.
type parker struct{ token chan struct{} }

func (p *parker) init()  { p.token = make(chan struct{}, 1) }
func (p *parker) sleep() { <-p.token }
func (p *parker) wake()  { p.token <- struct{}{} }
