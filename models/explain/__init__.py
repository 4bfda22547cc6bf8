"""Why a model says what it says: importance along the axis, weights, attention, Bragg peaks.

scores      the log-odds of a class, of which everything below is the gradient
gradients   gradient, input x gradient and integrated gradients of one pattern or window
along       these for all patterns of a series
weights     what can be read from the weights alone, without a pattern
fitted      loadings of principal components, weights of bins
attention   attention maps of the networks that have them
peaks       the fraction of the importance that falls on Bragg peaks
explanation all of it for one model and one series, and its figures
draw        pictures
command     ``phasewatch explain``
"""
