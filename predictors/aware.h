/* aware.h - what the predictor aware has in the side-car besides its factors (factors.h).
 *
 * aware.weight bf16 [AWARE_ROWS, n_ffn]: how much a neuron's activation weighs (where up is guessed, the norm of its
 * down row; else that times the mean |up|), and the deviation of the guess from the truth, of up where it is guessed,
 * else of the gate. aware.active f32 [1, 1]: share of the activations that are not zero. */
#ifndef MZM_AWARE_H
#define MZM_AWARE_H

#define AWARE_ROWS 2

#endif
