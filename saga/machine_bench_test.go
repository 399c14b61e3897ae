package saga

import (
	"testing"
	"time"
)

// BenchmarkMachine_ThreeLocalSteps is what one saga costs the machine: three
// local steps that each change the state, and its record at the end.
func BenchmarkMachine_ThreeLocalSteps(b *testing.B) {
	p, err := compile(saga(localStep("a"), localStep("b"), localStep("c")))
	if err != nil {
		b.Fatal(err)
	}
	e := env{now: time.UnixMilli(simStart)}
	b.ReportAllocs()
	for b.Loop() {
		in := &instance{id: "o-1"}
		out, err := next(p, in, input{kind: inStart, payload: []byte(`{"plan":"gold"}`)}, e)
		for err == nil && len(out) > 0 {
			out, err = next(p, in, input{kind: inLocal, op: out[0].op, result: "ok"}, e)
		}
		if err != nil || in.phase != Done {
			b.Fatal(err, in.phase)
		}
		_ = encodeInstance(in)
	}
}
