package ollama

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"strings"

	"millrace/internal/llm"
)

// Stream asks and hands over the answer as it is generated. FirstToken and
// LastToken count the model's thinking too; piece gets the answer alone.
func (s *Server) Stream(ctx context.Context, req llm.Request, piece func(text string) error) (llm.Reply, error) {
	call, err := s.call(req, true)
	if err != nil {
		return llm.Reply{}, err
	}
	reply, err := s.end.StreamReply(ctx, call, piece, func(r io.Reader, token func(answer string) error) (llm.Reply, error) {
		return readStream(r, req.Messages, token)
	})
	if err != nil {
		return llm.Reply{}, advise(err, req.Model)
	}
	return reply, nil
}

// repeats is the number of equal pieces after which Ollama ends an answer
// without saying that it is done (llm/server.go, Completion).
const repeats = 30

// readStream reads the lines of a streamed chat. It calls token for each piece
// of the answer, and with "" for a piece of thinking. The stream has to end
// with a line that says done: without it the reply is cut short.
func readStream(r io.Reader, private []llm.Message, token func(answer string) error) (llm.Reply, error) {
	in := bufio.NewReaderSize(r, 8<<10)
	var text, thinking strings.Builder
	var long []byte
	var reply llm.Reply
	var lastPiece string
	same := 0
	for {
		line, err := in.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			long = append(long, line...)
			continue
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return llm.Reply{}, err
		}
		if len(long) > 0 {
			long = append(long, line...)
			line = long
		}
		if trimmed := bytes.TrimSpace(line); len(trimmed) > 0 {
			var c chunk
			if err := llm.DecodeJSON(trimmed, &c); err != nil {
				return llm.Reply{}, llm.NotProtocol(llm.Ollama, trimmed, err)
			}
			if c.Error != "" {
				return llm.Reply{}, llm.ErrorFrom(0, nil, trimmed, private)
			}
			if c.Message != nil && c.Message.Content+c.Message.Thinking != "" {
				text.WriteString(c.Message.Content)
				thinking.WriteString(c.Message.Thinking)
				same++
				if p := strings.TrimSpace(c.Message.Content); p != lastPiece {
					same, lastPiece = 0, p
				}
				if err := token(c.Message.Content); err != nil {
					return llm.Reply{}, err
				}
			}
			reply = c.reply()
			reply.Text, reply.Thinking = text.String(), thinking.String()
			if c.Done {
				return reply, nil
			}
		}
		long = long[:0]
		if err != nil { // the end
			if same >= repeats {
				return reply, nil
			}
			return llm.Reply{}, &llm.Error{Kind: llm.Garbled, Message: "stream ended before the answer was done"}
		}
	}
}
