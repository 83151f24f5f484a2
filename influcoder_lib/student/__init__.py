"""The student: a text encoder whose cosine follows the teacher's influence."""
