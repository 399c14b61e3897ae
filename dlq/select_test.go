package dlq_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wherry-go/wherry"
	"github.com/wherry-go/wherry/dlq"
)

func TestSelection_Match(t *testing.T) {
	t.Parallel()
	l := letter(7, func(l *dlq.Letter) {
		l.Record = &kgo.Record{Topic: "dead", Partition: 3, Offset: 17, Timestamp: now.Add(time.Minute)}
		l.Headers = []kgo.RecordHeader{{Key: "tenant", Value: []byte("old")}, {Key: "tenant", Value: []byte("a")}, {Key: "raw", Value: []byte{0xff}}}
	})
	for name, row := range map[string]struct {
		sel  dlq.Selection
		want bool
	}{
		"zero selects all":                {dlq.Selection{}, true},
		"since then":                      {dlq.Selection{Since: now}, true},
		"since later":                     {dlq.Selection{Since: now.Add(1)}, false},
		"until then":                      {dlq.Selection{Until: now}, false},
		"until later":                     {dlq.Selection{Until: now.Add(1)}, true},
		"cause":                           {dlq.Selection{Causes: []wherry.Cause{wherry.CausePanic, wherry.CauseExhausted}}, true},
		"other cause":                     {dlq.Selection{Causes: []wherry.Cause{wherry.CausePanic}}, false},
		"type":                            {dlq.Selection{ErrorTypes: []string{"*pay.Error"}}, true},
		"part of a type":                  {dlq.Selection{ErrorTypes: []string{"pay.Error"}}, false},
		"error, other case":               {dlq.Selection{ErrorContains: "DECLINED"}, true},
		"other error":                     {dlq.Selection{ErrorContains: "timeout"}, false},
		"key":                             {dlq.Selection{Keys: []string{"k-6", "k-7"}}, true},
		"part of a key":                   {dlq.Selection{Keys: []string{"k"}}, false},
		"the last of several headers":     {dlq.Selection{Headers: map[string]string{"tenant": "a"}}, true},
		"not the first":                   {dlq.Selection{Headers: map[string]string{"tenant": "old"}}, false},
		"bytes of a header":               {dlq.Selection{Headers: map[string]string{"raw": "\xff"}}, true},
		"all headers":                     {dlq.Selection{Headers: map[string]string{"tenant": "a", "none": ""}}, false},
		"origin":                          {dlq.Selection{Topics: []string{"x", "orders"}}, true},
		"other origin":                    {dlq.Selection{Topics: []string{"x"}}, false},
		"group":                           {dlq.Selection{Groups: []string{"billing"}}, true},
		"other group":                     {dlq.Selection{Groups: []string{""}}, false},
		"its offset":                      {dlq.Selection{Offsets: []dlq.Offsets{{1, 0, 0}, {3, 17, 18}}}, true},
		"its partition":                   {dlq.Selection{Offsets: []dlq.Offsets{{Partition: 3}}}, true},
		"up to its offset":                {dlq.Selection{Offsets: []dlq.Offsets{{3, 0, 17}}}, false},
		"behind its offset":               {dlq.Selection{Offsets: []dlq.Offsets{{3, 18, 0}}}, false},
		"where":                           {dlq.Selection{Where: func(l *dlq.Letter) bool { return l.Attempts == 4 }}, true},
		"where not":                       {dlq.Selection{Where: func(l *dlq.Letter) bool { return l.Attempts != 4 }}, false},
		"fields narrow each other":        {dlq.Selection{Topics: []string{"orders"}, Groups: []string{"mailer"}}, false},
		"Decided and Limit do not matter": {dlq.Selection{Decided: true, Limit: 1}, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			require.Equal(t, row.want, row.sel.Match(l))
			require.Equal(t, row.want, row.sel.Match(l), "it is pure")
		})
	}
	silent := letter(0, func(l *dlq.Letter) {
		l.Failed, l.Key = time.Time{}, nil
		l.Record = &kgo.Record{Timestamp: now}
	})
	require.True(t, dlq.Selection{Since: now, Until: now.Add(1), Keys: []string{""}}.Match(silent), "a letter that does not say when it failed")
}
