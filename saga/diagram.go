package saga

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
)

// Shape describes, one line for a step, all of a Definition that sagas in
// flight rest on: names and order of steps and stages, what they do and undo,
// topics, outcomes, the pivot, the triggers. Keep it in a file beside a test: an
// edit that changes it needs a new Version.
func (d Definition[S]) Shape() string {
	p := d.plan()
	var b strings.Builder
	fmt.Fprintf(&b, "saga %s version %d\n", p.name, p.version)
	for _, t := range p.triggers {
		fmt.Fprintf(&b, "on %s\n", t.topic)
	}
	for n, st := range p.stages {
		fmt.Fprintf(&b, "stage %d\n", n+1)
		for _, i := range st.steps {
			s := p.steps[i]
			pivot := ""
			if i == p.pivot {
				pivot = " (pivot)"
			}
			fmt.Fprintf(&b, "  %s%s: %s\n", s.name, pivot, s.do)
			if s.undoes() {
				fmt.Fprintf(&b, "    undo: %s\n", s.undo)
			}
		}
	}
	return b.String()
}

// String says what an action does, and what ends it.
func (a act) String() string {
	var parts []string
	switch {
	case a.kind == actCall:
		return "call " + a.topic
	case a.kind == actLocal:
		return "local"
	case a.kind == actNone:
		return "nothing"
	case !a.awaits():
		parts = append(parts, "emit "+a.topic)
	}
	first := len(parts)
	for _, o := range a.outcomes {
		end := "success "
		if o.fails {
			end = "failure "
		}
		if a.awaits() {
			end = "await " + end
		}
		parts = append(parts, end+o.topic)
	}
	slices.Sort(parts[first:]) // their order means nothing
	return strings.Join(parts, ", ")
}

// graph is a Definition as it is drawn.
type graph struct {
	nodes []node
	edges []edge
}

type node struct {
	id, text string
	kind     nodeKind
	group    string // of a Parallel
}

type nodeKind uint8

const (
	nodeEnd nodeKind = iota
	nodeStep
	nodePivot
	nodeUndo
)

type edge struct {
	from, to, text string
	kind           edgeKind
}

type edgeKind uint8

const (
	edgeNext   edgeKind = iota
	edgeReject          // dotted
	edgePair            // dotted, and no arrow: a step and its undo
)

// graph draws the way forward, that back, and what leads from one to the other.
func (p *plan) graph() *graph {
	g := &graph{nodes: []node{{id: "start", text: p.name}}}
	for _, t := range p.triggers {
		g.nodes[0].text += "\n" + t.topic
	}
	last, undos := []string{"start"}, []string{"undone"}
	for n, st := range p.stages {
		var these, back []string
		for _, i := range st.steps {
			s := p.steps[i]
			id, kind := fmt.Sprintf("s%d", i), nodeStep
			if i == p.pivot {
				kind = nodePivot
			}
			g.nodes = append(g.nodes, node{id: id, text: s.text(st.when != nil), kind: kind, group: p.stages[n].name})
			these = append(these, id)
			for _, from := range last {
				g.edges = append(g.edges, edge{from: from, to: id})
			}
			switch {
			case p.beyond(i) && s.mayReject():
				g.edges = append(g.edges, edge{from: id, to: "parked", text: "rejected", kind: edgeReject})
			case !p.beyond(i) && s.mayReject():
				for _, to := range undos {
					g.edges = append(g.edges, edge{from: id, to: to, text: "rejected", kind: edgeReject})
				}
			}
			if s.undoes() {
				undo := fmt.Sprintf("u%d", i)
				g.nodes = append(g.nodes, node{id: undo, text: "undo " + s.name + "\n" + s.undo.String(), kind: nodeUndo})
				g.edges = append(g.edges, edge{from: id, to: undo, kind: edgePair})
				for _, to := range undos {
					g.edges = append(g.edges, edge{from: undo, to: to})
				}
				back = append(back, undo)
			}
		}
		last = these
		if len(back) > 0 {
			undos = back
		}
	}
	for _, from := range last {
		g.edges = append(g.edges, edge{from: from, to: "done"})
	}
	for _, end := range []string{"done", "undone", "parked"} {
		if slices.ContainsFunc(g.edges, func(e edge) bool { return e.to == end }) {
			g.nodes = append(g.nodes, node{id: end, text: end})
		}
	}
	return g
}

// mayReject reports whether a step can say no.
func (s planStep) mayReject() bool {
	return !s.do.sendsOnly() && (s.do.kind != actEmit || s.timeout > 0 || slices.ContainsFunc(s.do.outcomes, func(o outcome) bool { return o.fails }))
}

func (s planStep) text(optional bool) string {
	text := s.name
	if optional || s.when != nil {
		text += " (not always)"
	}
	return text + "\n" + s.do.String()
}

// Mermaid draws the Definition as a flowchart of Mermaid
// (https://mermaid.js.org/syntax/flowchart.html): the way forward, the undoing
// in its order, and dotted what leads from one to the other. The pivot has a
// double border.
func (d Definition[S]) Mermaid() string { return d.plan().mermaid() }

func (p *plan) mermaid() string {
	g := p.graph()
	text := func(s string) string {
		s = strings.NewReplacer("&", "#amp;", `"`, "#quot;", "<", "#lt;", ">", "#gt;").Replace(s)
		return `"` + strings.ReplaceAll(s, "\n", "<br/>") + `"`
	}
	var b strings.Builder
	b.WriteString("flowchart TD\n")
	g.each(func(n node, indent string) {
		shape := [...]string{nodeEnd: "([%s])", nodeStep: "[%s]", nodePivot: "[[%s]]", nodeUndo: "(%s)"}[n.kind]
		fmt.Fprintf(&b, "%s%s"+shape+"\n", indent, n.id, text(n.text))
	}, func(i int, name string) {
		fmt.Fprintf(&b, "  subgraph g%d[%s]\n", i, text(name))
	}, func() { b.WriteString("  end\n") })
	for _, e := range g.edges {
		switch e.kind {
		case edgeNext:
			fmt.Fprintf(&b, "  %s --> %s\n", e.from, e.to)
		case edgeReject:
			fmt.Fprintf(&b, "  %s -. %s .-> %s\n", e.from, e.text, e.to)
		case edgePair:
			fmt.Fprintf(&b, "  %s -.- %s\n", e.from, e.to)
		}
	}
	return b.String()
}

// DOT is [Definition.Mermaid] for Graphviz
// (https://graphviz.org/doc/info/lang.html).
func (d Definition[S]) DOT() string {
	g := d.plan().graph()
	text := func(s string) string {
		s = strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s)
		return `"` + strings.ReplaceAll(s, "\n", `\n`) + `"`
	}
	var b strings.Builder
	b.WriteString("digraph saga {\n  node [shape=box];\n")
	g.each(func(n node, indent string) {
		look := [...]string{nodeEnd: ", shape=oval", nodeStep: "", nodePivot: ", peripheries=2", nodeUndo: ", style=rounded"}[n.kind]
		fmt.Fprintf(&b, "%s%s [label=%s%s];\n", indent, n.id, text(n.text), look)
	}, func(i int, name string) {
		fmt.Fprintf(&b, "  subgraph cluster_%d {\n    label=%s;\n", i, text(name))
	}, func() { b.WriteString("  }\n") })
	for _, e := range g.edges {
		look := [...]string{edgeNext: "", edgeReject: " [style=dotted, label=" + text(e.text) + "]", edgePair: " [style=dotted, dir=none]"}[e.kind]
		fmt.Fprintf(&b, "  %s -> %s%s;\n", e.from, e.to, look)
	}
	b.WriteString("}\n")
	return b.String()
}

// each visits the nodes, those of a group between its begin and its end.
func (g *graph) each(visit func(n node, indent string), begin func(i int, name string), end func()) {
	var groups []string
	for _, n := range g.nodes {
		switch {
		case n.group == "":
			visit(n, "  ")
		case !slices.Contains(groups, n.group):
			groups = append(groups, n.group)
			begin(len(groups), n.group)
			for _, inner := range g.nodes {
				if inner.group == n.group {
					visit(inner, "    ")
				}
			}
			end()
		}
	}
}

// timeline is the history of one instance as text, a line for a transition,
// times as from the first that there is. steps are the names of its steps.
func timeline(steps []string, in *instance) string {
	var b strings.Builder
	head := fmt.Sprintf("%s: %s", in.id, in.phase)
	if in.paused {
		head += ", paused"
	}
	if in.why != "" {
		head += fmt.Sprintf(" (%s)", in.why)
	}
	b.WriteString(oneLine(head) + "\n")
	if n := in.moves - uint64(len(in.history)); n > 0 {
		fmt.Fprintf(&b, "… %d earlier\n", n)
	}
	name := func(i int) string {
		switch {
		case i < 0:
			return ""
		case i < len(steps):
			return steps[i]
		}
		return fmt.Sprintf("step %d", i+1)
	}
	wide := 0
	for _, t := range in.history {
		wide = max(wide, len(name(t.step)))
	}
	for _, t := range in.history {
		what := t.what.String()
		if t.attempt > 1 {
			what += fmt.Sprintf(" (attempt %d)", t.attempt)
		}
		if t.note != "" {
			what += ": " + t.note
		}
		at := time.Duration(t.at-in.history[0].at) * time.Millisecond
		b.WriteString(strings.TrimRight(oneLine(fmt.Sprintf("%10s  %-*s  %s", at, wide, name(t.step), what)), " ") + "\n")
	}
	return b.String()
}

// oneLine is a text without what ends a line, or moves a terminal's cursor: texts
// of participants are not to look like lines of ours.
func oneLine(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == '\u2028' || r == '\u2029' {
			return ' '
		}
		return r
	}, text)
}

// names are those of the steps, in order.
func (p *plan) names() (all []string) {
	for _, s := range p.steps {
		all = append(all, s.name)
	}
	return all
}
