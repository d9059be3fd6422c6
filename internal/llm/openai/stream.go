package openai

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
// LastToken count the model's reasoning too; piece gets the answer alone.
func (s *Server) Stream(ctx context.Context, req llm.Request, piece func(text string) error) (llm.Reply, error) {
	call, err := s.call(req, true)
	if err != nil {
		return llm.Reply{}, err
	}
	reply, err := s.end.StreamReply(ctx, call, piece, func(r io.Reader, token func(answer string) error) (llm.Reply, error) {
		return readStream(r, s.info.Kind, req.Messages, token)
	})
	if err != nil {
		return llm.Reply{}, s.advise(err, req.Model)
	}
	return reply, nil
}

// readStream reads the events of a streamed completion. It calls token for
// each piece of the answer, and with "" for a piece of reasoning. A stream that
// ends before it gave a reason for finishing is cut short.
func readStream(r io.Reader, kind llm.Kind, private []llm.Message, token func(answer string) error) (llm.Reply, error) {
	var reply llm.Reply
	var text, thinking strings.Builder
	finished := false
	err := readEvents(r, func(data []byte) (more bool, err error) {
		if string(data) == "[DONE]" {
			return false, nil
		}
		var c completion
		if err := llm.DecodeJSON(data, &c); err != nil {
			return false, llm.NotProtocol(kind, data, err)
		}
		if c.failed() {
			return false, llm.ErrorFrom(0, nil, data, private)
		}
		c.describe(&reply)
		if len(c.Choices) == 0 {
			return true, nil
		}
		choice := c.Choices[0]
		if choice.FinishReason != "" {
			finished = true
			reply.Finish = finish(choice.FinishReason)
		}
		if choice.Delta == nil {
			return true, nil
		}
		answer, thought := choice.Delta.text(), choice.Delta.thinking()
		text.WriteString(answer)
		thinking.WriteString(thought)
		if answer == "" && thought == "" {
			return true, nil
		}
		return true, token(answer)
	})
	if err != nil {
		return llm.Reply{}, err
	}
	if !finished {
		return llm.Reply{}, &llm.Error{Kind: llm.Garbled, Message: "stream ended before the answer was done"}
	}
	reply.Text, reply.Thinking = text.String(), thinking.String()
	return reply, nil
}

// readEvents reads server-sent events (HTML standard, section 9.2) and calls
// event with the data of each until it wants no more. Lines end with \n or
// \r\n. An "error:" line, which older llama-servers sent, is handed over as the
// data {"error": ...}. The last event counts even if the stream ends without
// the empty line after it.
func readEvents(r io.Reader, event func(data []byte) (more bool, err error)) error {
	in := bufio.NewReaderSize(r, 8<<10)
	var line, data []byte
	lines := 0 // data lines of the event
	for {
		part, err := in.ReadSlice('\n')
		line = append(line, part...)
		atEnd := errors.Is(err, io.EOF)
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case err != nil && !atEnd:
			return err
		}
		field := bytes.TrimSuffix(bytes.TrimSuffix(line, []byte("\n")), []byte("\r"))
		name, value, _ := bytes.Cut(field, []byte(":"))
		value = bytes.TrimPrefix(value, []byte(" "))
		switch string(name) {
		case "data":
			if lines > 0 {
				data = append(data, '\n')
			}
			data = append(data, value...)
			lines++
		case "error":
			data = append(append(append(data[:0], `{"error":`...), value...), '}')
			lines++
		}
		if (len(field) == 0 || atEnd) && lines > 0 {
			more, eventErr := event(data)
			if eventErr != nil || !more {
				return eventErr
			}
			data, lines = data[:0], 0
		}
		line = line[:0]
		if atEnd {
			return nil
		}
	}
}
