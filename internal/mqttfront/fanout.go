package mqttfront

import "context"

type fanOut struct{ f *Front }

func newFanOut(f *Front) *fanOut { return &fanOut{f} }

func (o *fanOut) offer(sender string, p *Publish) {}

func (o *fanOut) run(ctx context.Context) { <-ctx.Done() }
