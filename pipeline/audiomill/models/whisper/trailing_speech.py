"""Speech behind the last timestamp: with timestamps the decoder may end before the audio does."""

from __future__ import annotations

from audiomill.audio.clock import MODEL_SAMPLE_RATE
from audiomill.audio.cutting.segment import Segment
from audiomill.models.seq2seq.decode_slots import DecodedTokens
from audiomill.models.whisper.words import STAMP_SAMPLES

MIN_REST_S = 1.0
"""With less audio behind the last phrase Whisper invents a greeting."""
MIN_LEFT_OUT_S = 3.0  # less behind the last timestamp may be a pause, or the stamp's error


def without_rest(
    decoded: DecodedTokens, segment: Segment, start: int, first_timestamp: int, looks_behind: bool
) -> tuple[DecodedTokens, int | None]:
    """The tokens up to the last pair of timestamps, and how far behind `start` the rest is to be decoded.

    None if all was decoded: a single stamp ends the window, there are no pairs, or less than `MIN_REST_S` is left.

    Args:
        decoded: one pass of the decoder.
        segment: without context.
        start: sample of the segment from which the decoder was shown it.
        first_timestamp: the first token that is a timestamp.
        looks_behind: a single stamp is not believed where voice activity says that somebody goes on speaking.
    """
    ids, num_samples = decoded.tokens, len(segment.pcm_T) - start
    pairs = [i for i in range(1, len(ids)) if ids[i] >= first_timestamp and ids[i - 1] >= first_timestamp]
    ends_single = len(ids) >= 2 and ids[-1] >= first_timestamp > ids[-2]
    if ends_single and looks_behind:
        rest_from = (ids[-1] - first_timestamp) * STAMP_SAMPLES
        goes_on = _is_left_out(segment, start + rest_from)
        return decoded, rest_from if goes_on and rest_from > 0 else None
    if not pairs or ends_single:
        return decoded, None
    rest_from = (ids[pairs[-1]] - first_timestamp) * STAMP_SAMPLES
    if rest_from == 0 or num_samples - rest_from < MIN_REST_S * MODEL_SAMPLE_RATE:
        return decoded, None
    stop = pairs[-1] + 1
    return decoded._replace(tokens=ids[:stop], logprobs=decoded.logprobs[:stop]), rest_from


def _is_left_out(segment: Segment, decoded_until: int) -> bool:
    """Whether much of the speech lies behind a sample: all of a segment that voice activity cut out is speech, but for
    pauses; elsewhere there is more of it than fits before the sample."""
    whole = len(segment.pcm_T)
    speech = whole if segment.speech is None else segment.speech
    return min(whole, speech) - decoded_until > MIN_LEFT_OUT_S * MODEL_SAMPLE_RATE
