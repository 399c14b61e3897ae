package main_test

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry/kafkatest"
	"github.com/wherry-go/wherry/saga"
)

// shown requires that a text can be shown on a terminal: it is UTF-8, and has no
// control characters but the ends of lines.
func shown(t *testing.T, text string) {
	t.Helper()
	require.True(t, utf8.ValidString(text), "%q", text)
	for _, r := range text {
		require.True(t, r == '\n' || unicode.IsPrint(r), "%q in %q", r, text)
	}
}

// Ids, states and reasons are written by others, and must neither move the cursor
// of who looks at them, nor break the JSON, nor look like lines of ours.
func TestSaga_WhatOthersWroteIsHarmless(t *testing.T) {
	s := newSagas(t)
	ids := []string{"\x1b[2J\r\n\t\x7f", "\u009b31m\u202e\U000e0001<&>", "\xff\xfe\x9b", "-yes", "ünïcödé o/1", strings.Repeat("\xff", 256)}
	for _, id := range ids {
		require.NoError(t, s.engine.Start(t.Context(), id, order{Done: []string{"\u009b31m\u202e"}}))
		require.NoError(t, s.engine.Pause(t.Context(), id, saga.By{Actor: "\x1b]0;mallory\a", Reason: "x\r\n     0s  ended: done\u009b\xff"}))
	}
	byID := map[string]map[string]any{}
	out := s.ok(t, "saga", "ls", "trip", "-json")
	shown(t, out)
	require.Len(t, lines(out), len(ids))
	for _, l := range lines(out) {
		var one struct {
			ID       string
			IDBase64 []byte
			Paused   bool
			State    order
		}
		require.NoError(t, json.Unmarshal([]byte(l), &one), l)
		require.Equal(t, "\u009b31m\u202e", one.State.Done[0])
		if one.IDBase64 != nil {
			one.ID = string(one.IDBase64)
		}
		byID[one.ID] = nil
	}
	for _, id := range ids {
		require.Contains(t, byID, id)
	}
	table := s.ok(t, "saga", "ls", "trip")
	shown(t, table)
	require.Len(t, lines(table), 1+len(ids))
	for _, id := range ids {
		for _, args := range [][]string{{"show"}, {"show", "-json"}, {"show", "-topic"}, {"why"}, {"why", "-topic"}} {
			out := s.ok(t, append(append([]string{"saga"}, args...), "trip", "--", id)...)
			shown(t, out)
			if len(args) == 2 && args[1] == "-json" {
				require.True(t, json.Valid([]byte(out)))
				continue
			}
			require.NotContains(t, out, "\n     0s  ended", "no line is forged")
		}
		shown(t, s.ok(t, "saga", "graph", "trip", "-id="+id))
	}
	code, stdout, stderr := s.wherry(t, append([]string{"saga", "resume", "trip", "-reason", "r", "-json", "--"}, append(ids, "none\x1b[2J")...)...)
	require.Equal(t, 3, code)
	shown(t, stdout)
	shown(t, stderr)
	require.Len(t, lines(stdout), len(ids)+1)
	code, stdout, stderr = s.wherry(t, append([]string{"saga", "resume", "trip", "-reason", "again", "--"}, ids...)...)
	require.Equal(t, 3, code)
	require.Empty(t, stdout)
	shown(t, stderr)
}

// A state that is JSON but for its text, which is not UTF-8, is no JSON.
func TestSaga_AStateThatIsNoTextComesAsBytes(t *testing.T) {
	s := newSagas(t, "o-1")
	raw := []byte("{\"total\":1,\"done\":[\"\xff\x9b31m\"]}")
	require.NoError(t, s.engine.Complete(t.Context(), "o-1", saga.By{Actor: "a", Reason: "r", State: raw}))
	_, err := s.engine.Wait(t.Context(), "o-1")
	require.NoError(t, err)
	out := s.ok(t, "saga", "show", "trip", "o-1", "-json")
	shown(t, out)
	require.True(t, json.Valid([]byte(out)))
}

// A saga that cannot be read is one of those that are named, and the others are
// helped all the same.
func TestSagaVerbs_OneThatCannotBeReadDoesNotStopTheOthers(t *testing.T) {
	s := newSagas(t, "o-1", "o-2")
	require.NoError(t, s.stop())
	bad := &kgo.Record{Topic: "trip.saga.state", Key: []byte("bad"), Value: []byte{9, 9, 9}}
	require.NoError(t, s.cl.ProduceSync(t.Context(), bad).FirstErr())
	kafkatest.Run(t, &saga.Engine[order]{Client: s.Client(t), Definitions: s.engine.Definitions})
	code, stdout, stderr := s.wherry(t, "saga", "pause", "trip", "o-1", "bad", "o-2", "-reason", "r", "-by", "ada")
	require.Equal(t, 3, code, stderr)
	require.Equal(t, "o-1: pause, by ada\no-2: pause, by ada\n", stdout)
	require.Contains(t, stderr, `"bad"`)
	require.Contains(t, stderr, "1 of 3 sagas refused")
}
